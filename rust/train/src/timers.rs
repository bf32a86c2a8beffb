//! Where the time goes.

use crate::prefetch::Usage;
use std::time::Instant;

/// What the training thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Waits for a batch.
    DataWait,
    /// Forward, backward, update. On a GPU: queues the work and, at log points, waits for it.
    Compute,
    /// Validates.
    Validation,
    /// Writes a checkpoint.
    Checkpoint,
}

/// Seconds by phase over one stretch of training.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spans {
    seconds: [f64; 4],
    transfer: f64,
    num_samples: u64,
    num_steps: u64,
}

impl Spans {
    pub(crate) fn of(&self, phase: Phase) -> f64 {
        self.seconds[phase as usize]
    }

    /// Seconds of loading and computing, without validation and checkpoints.
    fn training(&self) -> f64 {
        self.of(Phase::DataWait) + self.of(Phase::Compute)
    }

    pub(crate) fn samples_per_sec(&self) -> f64 {
        rate(self.num_samples, self.training())
    }

    pub(crate) fn steps_per_sec(&self) -> f64 {
        rate(self.num_steps, self.training())
    }

    pub(crate) fn data_wait_fraction(&self) -> f64 {
        let training = self.training();
        if training > 0.0 { self.of(Phase::DataWait) / training } else { 0.0 }
    }

    /// Metrics of this stretch: rates, and seconds by phase.
    pub(crate) fn metrics(&self) -> Vec<(String, f64)> {
        let mut metrics = vec![
            ("perf/samples_per_sec".to_owned(), self.samples_per_sec()),
            ("perf/steps_per_sec".to_owned(), self.steps_per_sec()),
            ("perf/data_wait_fraction".to_owned(), self.data_wait_fraction()),
            ("time/transfer".to_owned(), self.transfer),
        ];
        for (name, phase) in [
            ("time/data_wait", Phase::DataWait),
            ("time/compute", Phase::Compute),
            ("time/validation", Phase::Validation),
            ("time/checkpoint", Phase::Checkpoint),
        ] {
            metrics.push((name.to_owned(), self.of(phase)));
        }
        metrics
    }

    fn add(&mut self, other: &Self) {
        for (sum, seconds) in self.seconds.iter_mut().zip(other.seconds) {
            *sum += seconds;
        }
        self.transfer += other.transfer;
        self.num_samples += other.num_samples;
        self.num_steps += other.num_steps;
    }
}

/// Measures a run; all time of the training thread belongs to one phase.
pub(crate) struct Timers {
    mark: Instant,
    since_log: Spans,
    before: Spans,
}

impl Timers {
    pub(crate) fn start() -> Self {
        Self { mark: Instant::now(), since_log: Spans::default(), before: Spans::default() }
    }

    /// Counts the time since the last call for `phase`.
    fn lap(&mut self, phase: Phase) {
        let now = Instant::now();
        self.since_log.seconds[phase as usize] += (now - self.mark).as_secs_f64();
        self.mark = now;
    }

    /// Counts an optimizer step, and the time since the last call: what its batches made it wait for, and computing.
    pub(crate) fn step(&mut self, usage: &Usage) {
        self.lap(Phase::Compute);
        let spans = &mut self.since_log;
        let wait = usage.wait.as_secs_f64();
        spans.seconds[Phase::DataWait as usize] += wait;
        spans.seconds[Phase::Compute as usize] -= wait;
        spans.transfer += usage.transfer.as_secs_f64();
        spans.num_samples += usage.num_samples;
        spans.num_steps += 1;
    }

    /// Runs `work` and counts its time for `phase`.
    pub(crate) fn measure<R>(&mut self, phase: Phase, work: impl FnOnce() -> R) -> R {
        let result = work();
        self.lap(phase);
        result
    }

    /// Ends a stretch and returns it.
    pub(crate) fn take(&mut self) -> Spans {
        let spans = std::mem::take(&mut self.since_log);
        self.before.add(&spans);
        spans
    }

    /// The whole run of this process so far.
    pub(crate) fn total(&self) -> Spans {
        let mut total = self.before;
        total.add(&self.since_log);
        total
    }
}

fn rate(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}
