//! What loading costs: a window of batches, timed as a trainer sees them, and what this process has used.

use crate::error::DataError;
use crate::loader::Loader;
use std::{
    collections::BTreeMap,
    fs, io, thread,
    time::{Duration, Instant},
};

/// A window of batches.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Batches in it.
    pub num_batches: usize,
    /// Samples in it, by the name of their source.
    pub num_samples: BTreeMap<String, u64>,
    /// From its begin to its end.
    pub wall: Duration,
    /// CPU time of the process, user and system, seconds.
    pub cpu_s: f64,
    /// By batch the time until it was there, shortest first.
    pub waits: Vec<Duration>,
    /// Fraction of their time that the decode threads waited because enough batches were ready.
    pub worker_idle: f64,
}

/// Takes `num_batches` batches of a loader, each followed by a training step that takes `step` and no CPU. `progress` receives the batches so far.
///
/// # Errors
/// As [`Loader::next_batch`], and an unreadable `/proc`.
pub fn measure(
    loader: &mut Loader,
    num_batches: usize,
    step: Duration,
    mut progress: impl FnMut(usize),
) -> Result<Measured, DataError> {
    let (before, cpu_before, began) = (loader.stats(), cpu_seconds()?, Instant::now());
    let mut num_samples = BTreeMap::new();
    let mut waits = Vec::with_capacity(num_batches);
    for number in 1..=num_batches {
        let asked = Instant::now();
        let batch = loader.next_batch()?;
        waits.push(asked.elapsed());
        for sample in batch.meta {
            *num_samples.entry(sample.source).or_default() += 1;
        }
        thread::sleep(step);
        progress(number);
    }
    let (wall, cpu_s, after) = (began.elapsed(), cpu_seconds()? - cpu_before, loader.stats());
    waits.sort_unstable();
    let [busy, idle] = [after.worker_busy - before.worker_busy, after.worker_idle - before.worker_idle];
    let worker_idle = idle.as_secs_f64() / (busy + idle).as_secs_f64().max(f64::MIN_POSITIVE);
    Ok(Measured { num_batches, num_samples, wall, cpu_s, waits, worker_idle })
}

impl Measured {
    /// All samples.
    #[must_use]
    pub fn num_all_samples(&self) -> u64 {
        self.num_samples.values().sum()
    }

    /// Batches per second.
    #[must_use]
    pub fn batches_per_s(&self) -> f64 {
        self.num_batches as f64 / self.wall.as_secs_f64()
    }

    /// Samples per second.
    #[must_use]
    pub fn samples_per_s(&self) -> f64 {
        self.num_all_samples() as f64 / self.wall.as_secs_f64()
    }

    /// CPU seconds per sample.
    #[must_use]
    pub fn cpu_s_per_sample(&self) -> f64 {
        self.cpu_s / self.num_all_samples() as f64
    }

    /// The time until the next batch that `fraction` of the batches did not exceed.
    #[must_use]
    pub fn wait_quantile(&self, fraction: f64) -> Duration {
        let rank = (fraction * self.waits.len() as f64).ceil() as usize;
        self.waits.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// Fraction of the window that the trainer waited for batches.
    #[must_use]
    pub fn consumer_wait(&self) -> f64 {
        self.waits.iter().sum::<Duration>().as_secs_f64() / self.wall.as_secs_f64()
    }
}

/// CPU seconds of this process so far, user and system, in steps of 0.01.
///
/// # Errors
/// `/proc` cannot be read.
pub fn cpu_seconds() -> Result<f64, DataError> {
    let path = "/proc/self/stat";
    let stat = fs::read_to_string(path).map_err(DataError::io(path))?;
    // The name of the process is in brackets and may have spaces; user and system time are the 14th and the 15th field.
    let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11);
    let mut ticks = || fields.next().and_then(|field| field.parse::<f64>().ok()).ok_or_else(|| unexpected(path));
    Ok((ticks()? + ticks()?) / 100.0)
}

/// Resident memory of this process now and at its peak, MB.
///
/// # Errors
/// `/proc` cannot be read.
pub fn resident_mb() -> Result<[f64; 2], DataError> {
    let path = "/proc/self/status";
    let status = fs::read_to_string(path).map_err(DataError::io(path))?;
    let megabytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse::<f64>().ok());
        kib.map(|kib| kib * 1024.0 / 1e6).ok_or_else(|| unexpected(path))
    };
    Ok([megabytes("VmRSS:")?, megabytes("VmHWM:")?])
}

fn unexpected(path: &str) -> DataError {
    DataError::io(path)(io::Error::from(io::ErrorKind::InvalidData))
}

#[cfg(test)]
mod tests {
    use super::{Measured, cpu_seconds, resident_mb};
    use std::{collections::BTreeMap, hint::black_box, time::Duration};

    #[test]
    fn a_window_has_rates_and_quantiles() {
        let measured = Measured {
            num_batches: 4,
            num_samples: BTreeMap::from([("a".to_owned(), 6), ("b".to_owned(), 2)]),
            wall: Duration::from_secs(2),
            cpu_s: 4.0,
            waits: [100, 100, 200, 600].map(Duration::from_millis).to_vec(),
            worker_idle: 0.0,
        };
        let rates = [measured.batches_per_s(), measured.samples_per_s(), measured.cpu_s_per_sample()];
        assert_eq!(rates, [2.0, 4.0, 0.5]);
        let quantiles = [0.5, 0.51, 0.99].map(|fraction| measured.wait_quantile(fraction).as_millis());
        assert_eq!((quantiles, measured.consumer_wait()), ([100, 200, 600], 0.5));
    }

    #[test]
    fn the_process_has_used_time_and_memory() {
        let began = cpu_seconds().unwrap_or(f64::NAN);
        while cpu_seconds().is_ok_and(|now| now < began + 0.02) {
            black_box(0);
        }
        assert!(resident_mb().is_ok_and(|[now, peak]| 0.0 < now && now <= peak));
    }
}
