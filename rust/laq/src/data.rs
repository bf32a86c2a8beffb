//! Frame pairs for the engine.

use crate::LaqError;
use hlrp_config::schema::LaqConfig;
use hlrp_data::{Batch, CacheProgress, FrameSize, Loader, Mixture, Position, Shard};
use hlrp_train::{BatchStream, TrainingData, ValidationBatches};
use std::sync::Arc;

/// The image stream that stage 1 reads.
pub const ROLE: &str = "primary";

/// Training and validation pairs of a configuration.
pub struct PairData {
    mixture: Arc<Mixture>,
    seed: u64,
}

impl PairData {
    /// Opens every dataset of the configuration; frames come in the model's size.
    ///
    /// # Errors
    /// A dataset that cannot be read or has no stream [`ROLE`].
    pub fn open(config: &LaqConfig, progress: &CacheProgress<'_>) -> anyhow::Result<Self> {
        let side = usize::try_from(config.model.image_size)?;
        let mixture = Mixture::open(&config.data, FrameSize { height: side, width: side }, progress)?;
        let roles = &mixture.layout().roles;
        if !roles.iter().any(|role| role == ROLE) {
            return Err(LaqError::Stream { role: ROLE.into(), available: roles.clone() }.into());
        }
        Ok(Self { mixture: Arc::new(mixture), seed: config.seed })
    }

    /// The opened datasets.
    pub fn mixture(&self) -> &Arc<Mixture> {
        &self.mixture
    }
}

impl TrainingData for PairData {
    fn train(&mut self, position: Position) -> anyhow::Result<Box<dyn BatchStream>> {
        Ok(Box::new(Pairs(Loader::train(&self.mixture, self.seed, Shard::SINGLE, position)?)))
    }

    fn validation(&mut self, limit_batches: Option<usize>) -> anyhow::Result<ValidationBatches> {
        let batches = Loader::validation(&self.mixture, limit_batches, Shard::SINGLE)?;
        Ok(Box::new(batches.map(|batch| Ok(batch?))))
    }
}

struct Pairs(Loader);

impl BatchStream for Pairs {
    fn next_batch(&mut self) -> anyhow::Result<Batch> {
        Ok(self.0.next_batch()?)
    }

    fn position(&self) -> Position {
        self.0.position()
    }
}
