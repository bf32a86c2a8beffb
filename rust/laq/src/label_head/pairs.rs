//! Batches of labelled pairs: which one comes at which step follows from the step alone, so that a resumed run sees the same ones.

use hlrp_data::{Loader, Mixture, Position, Shard, Split};
use hlrp_schema::LaqConfig;
use hlrp_torch::{HostToDevice, World};
use hlrp_train::DeviceBatch;
use std::sync::Arc;
use tch::Device;

/// Keeps the order of labelled pairs apart from that of all pairs, which has the seed of the run.
const SEED_OFFSET: u64 = 0x6c61_6265_6c73;

/// The endless stream of labelled pairs of one process.
pub(super) struct LabelledPairs {
    /// Its training set is the labelled episodes.
    mixture: Arc<Mixture>,
    seed: u64,
    shard: Shard,
    batch_size: u64,
    every_n_steps: u64,
    /// Micro-batches of a step.
    accumulate_steps: u64,
    transfer: HostToDevice,
    /// None before the first batch.
    loader: Option<Loader>,
}

impl LabelledPairs {
    /// The labelled pairs of `mixture` with their actions; nothing is read yet.
    ///
    /// # Errors
    /// Sources without actions, or of different actions; or no labelled pair.
    pub(super) fn new(config: &LaqConfig, mixture: &Mixture, world: &World, device: Device) -> anyhow::Result<Self> {
        let mixture = mixture.with_whole_pairs(&config.data.request)?.labelled()?;
        Loader::check(&mixture, Split::Train, Shard::SINGLE)?;
        let num_pairs = mixture.anchors(Split::Train).len();
        tracing::info!("label head: {num_pairs} labelled pairs");
        Ok(Self {
            mixture: Arc::new(mixture),
            seed: config.seed ^ SEED_OFFSET,
            shard: Shard { rank: world.rank() as u64, world: world.size() as u64 },
            batch_size: config.data.loader.batch_size as u64,
            every_n_steps: config.model.label_head.every_n_steps,
            accumulate_steps: config.training.gradient.accumulate_steps,
            transfer: HostToDevice::new(device)?,
            loader: None,
        })
    }

    /// Width of an action.
    pub(super) fn action_dim(&self) -> i64 {
        self.mixture.layout().action.map_or(0, |[_, width]| width as i64)
    }

    /// Whether step `step` has a batch.
    pub(super) fn has_batch(&self, step: u64) -> bool {
        step.is_multiple_of(self.every_n_steps)
    }

    /// The batch of the next micro-batch of optimizer step `step`, on the device; none where the step has none.
    ///
    /// # Errors
    /// Data that cannot be read.
    pub(super) fn next_batch(&mut self, step: u64) -> anyhow::Result<Option<DeviceBatch>> {
        if !self.has_batch(step) {
            return Ok(None);
        }
        let loader = match self.loader.take() {
            Some(loader) => loader,
            None => Loader::train(&self.mixture, self.seed, self.shard, self.start_of(step))?,
        };
        let batch = self.loader.insert(loader).next_batch()?;
        Ok(Some(DeviceBatch::from_host(batch, &self.transfer)?))
    }

    /// The position in the stream before the first batch of `step`.
    fn start_of(&self, step: u64) -> Position {
        let num_batches = (step / self.every_n_steps - 1) * self.accumulate_steps;
        let num_pairs = num_batches * self.batch_size * self.shard.world;
        let num_anchors = self.mixture.anchors(Split::Train).len();
        Position { epoch: num_pairs / num_anchors, sample: num_pairs % num_anchors, num_bad_samples: 0 }
    }
}
