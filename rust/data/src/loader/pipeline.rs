//! The threads of a loader and their end.

use super::{
    LoadError, LoaderStats,
    outcome::{self, BadBudget, Outcome},
    plan::Plan,
    queue::Queue,
    stats::Counters,
    worker,
};
use crate::{Batch, DataError, Mixture};
use std::{
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

const BYTES_PER_MIB: usize = 1 << 20;

/// What the threads share.
pub(super) struct Shared {
    pub(super) mixture: Arc<Mixture>,
    pub(super) plan: Plan,
    pub(super) queue: Queue,
    pub(super) counters: Counters,
}

/// Running threads and the consumer's end of their queue.
pub(super) struct Pipeline {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    budget: BadBudget,
    batch_bytes: u64,
    max_pending: u64,
    consumer_wait: Duration,
    has_failed: bool,
}

impl Pipeline {
    pub(super) fn start(mixture: &Arc<Mixture>, plan: Plan, num_bad: u64) -> Result<Self, DataError> {
        let config = &mixture.loader;
        let batch_bytes = mixture.layout.sample_bytes() * config.batch_size;
        let max_pending = config.prefetch_batches.min(config.memory_budget_mb * BYTES_PER_MIB / batch_bytes);
        if max_pending == 0 {
            let problem = format!("one batch takes {} MiB", batch_bytes.div_ceil(BYTES_PER_MIB));
            let hint = "raise it, or lower data.loader.batch_size";
            return Err(LoadError::setting("data.loader.memory_budget_mb", &problem, hint).into());
        }
        let queue = Queue::new(mixture.layout.clone(), config.batch_size, plan.len(), max_pending);
        let shared = Arc::new(Shared { mixture: Arc::clone(mixture), plan, queue, counters: Counters::default() });
        let mut pipeline = Self {
            threads: Vec::with_capacity(config.num_workers),
            budget: BadBudget { num_bad, max_bad: config.max_bad_samples as u64 },
            batch_bytes: batch_bytes as u64,
            max_pending: max_pending as u64,
            consumer_wait: Duration::ZERO,
            has_failed: false,
            shared,
        };
        for number in 0..config.num_workers {
            let shared = Arc::clone(&pipeline.shared);
            let thread = thread::Builder::new().name(format!("decode-{number}")).spawn(move || worker::run(&shared));
            // Dropping the pipeline ends the threads that did start.
            pipeline.threads.push(thread.map_err(LoadError::Thread)?);
        }
        Ok(pipeline)
    }

    /// The next batch; none after the last. An error stops the threads, and every later call says so.
    pub(super) fn next(&mut self) -> Result<Option<Batch>, DataError> {
        if self.has_failed {
            return Err(LoadError::Stopped.into());
        }
        let asked = Instant::now();
        let outcomes = self.shared.queue.next();
        self.consumer_wait += asked.elapsed();
        let Some(outcomes) = outcomes else { return Ok(None) };
        let admitted = outcomes.into_iter().map(|outcome: Outcome| self.budget.admit(outcome)).collect();
        match admitted {
            Ok(samples) => Ok(Some(outcome::batch(&self.shared.mixture.layout, samples))),
            Err(error) => {
                self.has_failed = true;
                self.shared.queue.stop();
                Err(error)
            }
        }
    }

    pub(super) fn num_bad_samples(&self) -> u64 {
        self.budget.num_bad
    }

    pub(super) fn stats(&self) -> LoaderStats {
        let Shared { counters, queue, .. } = &*self.shared;
        LoaderStats {
            num_samples: counters.num_samples.load(Ordering::Relaxed),
            num_bad_samples: self.budget.num_bad,
            bytes_in_flight: queue.num_pending() as u64 * self.batch_bytes,
            max_bytes_in_flight: self.max_pending * self.batch_bytes,
            worker_busy: counters.busy(),
            worker_idle: counters.idle(),
            consumer_wait: self.consumer_wait,
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.shared.queue.stop();
        for thread in self.threads.drain(..) {
            // Panics are caught in the thread and delivered as outcomes.
            let _ = thread.join();
        }
    }
}
