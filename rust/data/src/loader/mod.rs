//! Batches from many threads: deterministic order and content whatever the number of threads.
//!
//! A plan says which anchor each draw is. Threads take draws in order, one sample at a time, and write its images straight into their part
//! of the batch's buffer; the frames of a clip are decoded once and copied. Batches leave in order. A batch is begun only while fewer than
//! `prefetch_batches` are in flight and it fits the byte budget together with the clips, so what is in flight is bounded and threads wait instead of
//! piling up. Dropping a loader ends its threads.

mod clips;
mod pipeline;
mod queue;
mod samples;
mod stats;
mod worker;

pub use stats::LoaderStats;

use crate::batch::Batch;
use crate::error::{DataError, LoadError};
use crate::mixture::Mixture;
use crate::sampler::{Balance, Clips, Plan, Position, Shard, TrainSampler, ValidationSampler};
use crate::source::Split;
use hlrp_config::Problem;
use pipeline::{Pipeline, Sizes};
use std::sync::Arc;

/// Endless training batches of one rank.
pub struct Loader {
    pipeline: Pipeline,
    sampler: TrainSampler,
    batch_size: u64,
    num_batches: u64,
}

impl Loader {
    /// Starts loading training batches at `start` ([`Position::default`] for a new run).
    ///
    /// # Errors
    /// There is no training sample, clips are too long for the data, `shard` or `start` is impossible, one batch and its clips exceed the byte budget,
    /// or threads cannot be started.
    pub fn train(mixture: &Arc<Mixture>, seed: u64, shard: Shard, start: Position) -> Result<Self, DataError> {
        let sampler = train_sampler(mixture, seed, shard, start)?;
        let pipeline = Pipeline::start(mixture, Plan::Train(sampler.clone()), start.num_bad_samples)?;
        Ok(Self { pipeline, sampler, batch_size: mixture.loader.batch_size as u64, num_batches: 0 })
    }

    /// Refuses settings with which [`Loader::train`] or [`Loader::validation`] would fail, without starting anything.
    ///
    /// # Errors
    /// As both.
    pub fn check(mixture: &Mixture, split: Split, shard: Shard) -> Result<(), DataError> {
        let plan = match split {
            Split::Train => Plan::Train(train_sampler(mixture, 0, shard, Position::default())?),
            Split::Validation => {
                mixture.require(split)?;
                Plan::Validation(ValidationSampler::new(
                    mixture.anchors(split).len(),
                    None,
                    mixture.loader.batch_size as u64,
                    shard,
                )?)
            }
        };
        Sizes::of(mixture, &plan)?;
        Ok(())
    }

    /// Starts one pass over the validation anchors: the same samples in the same order each time.
    /// `limit_batches` takes as many full batches per rank instead of all, spread evenly over the anchors. Each batch is spread over all of
    /// them as well.
    ///
    /// # Errors
    /// There is no validation sample, `shard` is impossible, one batch exceeds the byte budget, or threads cannot be started.
    pub fn validation(
        mixture: &Arc<Mixture>,
        limit_batches: Option<usize>,
        shard: Shard,
    ) -> Result<ValidationLoader, DataError> {
        mixture.require(Split::Validation)?;
        let batch_size = mixture.loader.batch_size as u64;
        let limit = limit_batches.map(|n| n as u64 * batch_size * shard.world);
        let sampler = ValidationSampler::new(mixture.anchors(Split::Validation).len(), limit, batch_size, shard)?;
        let num_batches = usize::try_from(sampler.len().div_ceil(batch_size)).unwrap_or(usize::MAX);
        Ok(ValidationLoader { pipeline: Pipeline::start(mixture, Plan::Validation(sampler), 0)?, num_batches })
    }

    /// The next batch. Waits for it.
    ///
    /// # Errors
    /// More samples than allowed cannot be decoded. The loader has stopped then.
    pub fn next_batch(&mut self) -> Result<Batch, DataError> {
        let batch = self.pipeline.next()?.ok_or(LoadError::Stopped)?;
        self.num_batches += 1;
        Ok(batch)
    }

    /// Position after the last batch: a loader that starts there continues with the next one.
    #[must_use]
    pub fn position(&self) -> Position {
        self.sampler.position(self.num_batches * self.batch_size, self.pipeline.num_bad_samples())
    }

    /// What the threads have done so far.
    #[must_use]
    pub fn stats(&self) -> LoaderStats {
        self.pipeline.stats()
    }
}

fn train_sampler(mixture: &Mixture, seed: u64, shard: Shard, start: Position) -> Result<TrainSampler, DataError> {
    mixture.require(Split::Train)?;
    let config = &mixture.loader;
    let clips = Clips::new(config.anchors_per_clip as u64, config.batch_size as u64 * shard.world);
    let num_anchors = mixture.anchors(Split::Train).len();
    let sampler = TrainSampler::new(num_anchors, clips, seed, shard, start)?;
    if let Some(mixing) = &mixture.mixing {
        return Ok(sampler.mixed(Arc::clone(mixing)));
    }
    let (Some(fraction), Some(num_labelled)) = (config.labelled_fraction, mixture.num_labelled) else {
        return Ok(sampler);
    };
    if num_labelled == 0 || num_labelled == num_anchors {
        let which = if num_labelled == 0 { "no" } else { "every" };
        let hint = "list episodes in data.sources.<name>.labelled_episodes, or set it to null";
        let message = format!("{which} training sample is of a labelled episode");
        return Err(Problem::new("data.loader.labelled_fraction", message, hint).into());
    }
    Ok(sampler.balanced(Balance { num_labelled, fraction }))
}

/// One pass over the validation samples of one rank. Ends after the last batch or the first error.
pub struct ValidationLoader {
    pipeline: Pipeline,
    num_batches: usize,
}

impl ValidationLoader {
    /// Batches of the whole pass.
    #[must_use]
    pub fn num_batches(&self) -> usize {
        self.num_batches
    }

    /// What the threads have done so far.
    #[must_use]
    pub fn stats(&self) -> LoaderStats {
        self.pipeline.stats()
    }
}

impl Iterator for ValidationLoader {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.pipeline.next() {
            Err(DataError::Load(LoadError::Stopped)) => None,
            result => result.transpose(),
        }
    }
}
