//! The threads of a loader and their end.

use super::{
    clips::ClipStore,
    queue::Queue,
    samples::{self, BadBudget, Outcome},
    stats::{Counters, LoaderStats},
    worker::{self, Shared},
};
use crate::batch::Batch;
use crate::error::{DataError, LoadError};
use crate::mixture::Mixture;
use crate::sampler::Plan;
use hlrp_config::Problem;
use std::{
    mem, process,
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

const BYTES_PER_MIB: usize = 1 << 20;

/// Running threads and the consumer's end of their queue.
pub(super) struct Pipeline {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// The process that started the threads: a fork copies none of them.
    owner: u32,
    budget: BadBudget,
    batch_bytes: u64,
    clip_bytes: u64,
    max_pending: u64,
    consumer_wait: Duration,
    has_failed: bool,
}

impl Pipeline {
    pub(super) fn start(mixture: &Arc<Mixture>, plan: Plan, num_bad: u64) -> Result<Self, DataError> {
        let config = &mixture.loader;
        let Sizes { batch_bytes, num_clips, clip_bytes, max_pending } = Sizes::of(mixture, &plan)?;
        let queue = Queue::new(mixture.layout.clone(), config.batch_size, plan.len(), max_pending);
        let (mixture, clips, counters) = (Arc::clone(mixture), ClipStore::new(num_clips), Counters::default());
        let shared = Arc::new(Shared { mixture, plan, queue, clips, counters });
        let mut pipeline = Self {
            threads: Vec::with_capacity(config.num_workers),
            owner: process::id(),
            budget: BadBudget { num_bad, max_bad: config.max_bad_samples as u64 },
            batch_bytes: batch_bytes as u64,
            clip_bytes: clip_bytes as u64,
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
        LoadError::refuse_fork(self.owner)?;
        if self.has_failed {
            return Err(LoadError::Stopped.into());
        }
        let asked = Instant::now();
        let outcomes = self.shared.queue.next();
        self.consumer_wait += asked.elapsed();
        let Some(outcomes) = outcomes else { return Ok(None) };
        let admitted = outcomes.into_iter().map(|outcome: Outcome| self.budget.admit(outcome)).collect();
        match admitted {
            Ok(samples) => Ok(Some(samples::batch(&self.shared.mixture.layout, samples))),
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
            bytes_in_flight: self.clip_bytes + queue.num_pending() as u64 * self.batch_bytes,
            max_bytes_in_flight: self.clip_bytes + self.max_pending * self.batch_bytes,
            worker_busy: counters.busy(),
            worker_idle: counters.idle(),
            consumer_wait: self.consumer_wait,
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        if self.owner != process::id() {
            // The threads are those of the other process, and a lock that one of them held is never released in this one.
            mem::forget(mem::take(&mut self.threads));
            return;
        }
        self.shared.queue.stop();
        for thread in self.threads.drain(..) {
            // Panics are caught in the thread and delivered as outcomes.
            let _ = thread.join();
        }
    }
}

/// What a loader keeps in memory.
pub(super) struct Sizes {
    /// Bytes of one batch.
    batch_bytes: usize,
    /// Clips that are kept at the same time.
    num_clips: usize,
    /// The most bytes of all clips together.
    clip_bytes: usize,
    /// Batches that may be in the making.
    max_pending: usize,
}

impl Sizes {
    /// The sizes of a plan over a mixture.
    ///
    /// # Errors
    /// One batch and its clips exceed the byte budget.
    pub(super) fn of(mixture: &Mixture, plan: &Plan) -> Result<Self, Problem> {
        let config = &mixture.loader;
        let batch_bytes = mixture.layout.sample_bytes().saturating_mul(config.batch_size);
        let (num_clips, clip_bytes) = clips_of(mixture, plan);
        let budget = config.memory_budget_mb.saturating_mul(BYTES_PER_MIB);
        let max_pending = config.prefetch_batches.min(budget.saturating_sub(clip_bytes) / batch_bytes.max(1));
        match max_pending {
            0 => Err(too_small(batch_bytes, clip_bytes)),
            _ => Ok(Self { batch_bytes, num_clips, clip_bytes, max_pending }),
        }
    }
}

/// Clips that are kept at the same time, and the most bytes that they take.
fn clips_of(mixture: &Mixture, plan: &Plan) -> (usize, usize) {
    let (config, layout) = (&mixture.loader, &mixture.layout);
    if matches!(plan, Plan::Validation(_)) || config.anchors_per_clip == 1 {
        return (0, 0);
    }
    // One for each sample of a batch, and one for each sample in the making.
    let num_clips = config.batch_size + config.num_workers;
    // Anchors may share frames; those of two episodes do not.
    let clip_bytes = layout.image_bytes().sum::<usize>().saturating_mul(config.anchors_per_clip);
    (num_clips, clip_bytes.saturating_mul(num_clips))
}

/// The error of a budget that is smaller than what is needed at least.
fn too_small(batch_bytes: usize, clip_bytes: usize) -> Problem {
    let mib = |bytes: usize| bytes.div_ceil(BYTES_PER_MIB);
    let (problem, hint) = if clip_bytes == 0 {
        (format!("one batch takes {} MiB", mib(batch_bytes)), "raise it, or lower data.loader.batch_size")
    } else {
        let problem = format!("one batch takes {} MiB and its clips {} MiB", mib(batch_bytes), mib(clip_bytes));
        (problem, "raise it, or lower data.loader.anchors_per_clip or batch_size")
    };
    Problem::new("data.loader.memory_budget_mb", problem, hint)
}
