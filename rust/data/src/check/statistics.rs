//! Statistics of the data against `meta/stats.json`.

use super::Findings;
use crate::lerobot::{Dataset, read_stats};
use std::collections::BTreeMap;

/// How far a statistic may be off, relative to the range of the values: the recorder sums in single precision.
const TOLERANCE: f64 = 1e-3;

/// Running statistics of a feature, one per entry.
pub(super) struct Statistics {
    width: usize,
    count: f64,
    entries: Vec<Entry>,
}

/// Running statistics of one entry of a vector.
#[derive(Clone)]
struct Entry {
    count: f64,
    mean: f64,
    /// Sum of squared deviations from the mean (Welford).
    squares: f64,
    min: f64,
    max: f64,
}

impl Entry {
    const EMPTY: Self = Self { count: 0.0, mean: 0.0, squares: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY };

    fn add(&mut self, value: f64) {
        self.count += 1.0;
        let delta = value - self.mean;
        self.mean += delta / self.count;
        self.squares += delta * (value - self.mean);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    /// Both together (Chan et al.'s parallel variance).
    fn merged(&self, other: &Self) -> Self {
        let count = self.count + other.count;
        if count == 0.0 {
            return Self::EMPTY;
        }
        let delta = other.mean - self.mean;
        Self {
            count,
            mean: self.mean + delta * other.count / count,
            squares: self.squares + other.squares + delta * delta * self.count * other.count / count,
            min: self.min.min(other.min),
            max: self.max.max(other.max),
        }
    }
}

impl Statistics {
    pub(super) fn new(width: usize) -> Self {
        Self { width, count: 0.0, entries: vec![Entry::EMPTY; width] }
    }

    /// Adds `values` (`[rows, width]`).
    pub(super) fn add(&mut self, values: &[f64]) {
        for row in values.chunks_exact(self.width.max(1)) {
            self.count += 1.0;
            self.entries.iter_mut().zip(row).for_each(|(entry, &value)| entry.add(value));
        }
    }

    /// Statistics over groups of entries: a recorder may give one value per entry of the last dimension only.
    fn folded(&self, width: usize) -> Vec<Entry> {
        let fold = |at: usize| self.entries.iter().skip(at).step_by(width).fold(Entry::EMPTY, |sum, e| sum.merged(e));
        (0..width).map(fold).collect()
    }
}

/// Compares what was summed with what `meta/stats.json` says. Statistics of cameras are samples and are not compared.
pub(super) fn compare(dataset: &Dataset, statistics: &BTreeMap<&str, Statistics>, findings: &mut Findings) {
    let path = dataset.root().join("meta/stats.json");
    let said = match read_stats(dataset.root()) {
        Ok(said) => said,
        Err(error) => return findings.error(&error),
    };
    if said.is_empty() {
        findings.add(&path, "there are no statistics, so nothing can be normalised by them");
    }
    for (key, stats) in &said {
        let Some(ours) = statistics.get(key.as_str()) else { continue };
        for (name, values) in &stats.values {
            if values.is_empty() || ours.width % values.len() != 0 {
                findings
                    .add(&path, &format!("{key}: {name} has {} values, but rows hold {}", values.len(), ours.width));
                continue;
            }
            if name == "count" {
                if values[0] != ours.count {
                    findings.add(&path, &format!("{key}: count is {}, but there are {} rows", values[0], ours.count));
                }
                continue;
            }
            for (at, (entry, &value)) in ours.folded(values.len()).iter().zip(values).enumerate() {
                let expected = match name.as_str() {
                    "mean" => entry.mean,
                    "std" => (entry.squares / entry.count).sqrt(),
                    "min" => entry.min,
                    "max" => entry.max,
                    _ => continue,
                };
                let tolerance = TOLERANCE * (entry.max - entry.min) + 1e-5 * entry.mean.abs() + 1e-6;
                // A comparison that a NaN fails, too.
                let is_near = (value - expected).abs() <= tolerance;
                if !is_near {
                    let what = format!("{key}[{at}]: {name} is {value}, but the data give {expected}");
                    findings.add(&path, &what);
                }
            }
        }
    }
}
