//! Datasets as the data of a run.

use crate::{BatchStream, TrainingData, ValidationBatches};
use hlrp_data::{Batch, Loader, Mixture, Position, Shard, Split};
use hlrp_torch::World;
use std::sync::Arc;

/// Training and validation samples of opened datasets.
pub struct LoaderData {
    train: Arc<Mixture>,
    validation: Arc<Mixture>,
    seed: u64,
}

impl LoaderData {
    /// Trains on the training episodes of `train` and validates on the held-out ones of `validation`, which may hold more per sample;
    /// `seed` fixes the order.
    ///
    /// # Errors
    /// No episode is held out, or none is long enough.
    pub fn new(train: Arc<Mixture>, validation: Arc<Mixture>, seed: u64) -> anyhow::Result<Self> {
        validation.require(Split::Validation)?;
        Ok(Self { train, validation, seed })
    }

    /// The opened datasets of the training.
    pub fn mixture(&self) -> &Arc<Mixture> {
        &self.train
    }
}

impl TrainingData for LoaderData {
    fn train(&mut self, position: Position, world: &World) -> anyhow::Result<Box<dyn BatchStream>> {
        Ok(Box::new(Loader::train(&self.train, self.seed, shard(world), position)?))
    }

    fn validation(&mut self, limit_batches: Option<usize>, world: &World) -> anyhow::Result<ValidationBatches> {
        let batches = Loader::validation(&self.validation, limit_batches, shard(world))?;
        Ok(Box::new(batches.map(|batch| Ok(batch?))))
    }
}

impl BatchStream for Loader {
    fn next_batch(&mut self) -> anyhow::Result<Batch> {
        Ok(Loader::next_batch(self)?)
    }

    fn position(&self) -> Position {
        Loader::position(self)
    }
}

/// The part of the data that a process reads.
fn shard(world: &World) -> Shard {
    Shard { rank: world.rank() as u64, world: world.size() as u64 }
}
