//! Where batches come from: the data of a run, one part of it for each process.

use hlrp_data::{Batch, Loader, Mixture, Position, Shard, Source, Split};
use hlrp_torch::World;
use hlrp_track::run::LabelShare;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// An endless stream of training batches with a position.
pub trait BatchStream: Send {
    /// The next batch.
    ///
    /// # Errors
    /// Data that cannot be read; the stream is then over.
    fn next_batch(&mut self) -> anyhow::Result<Batch>;

    /// Position after the last batch that [`BatchStream::next_batch`] returned; a stream opened there continues with the next one.
    fn position(&self) -> Position;
}

/// Batches of one validation, the same in the same order every time.
pub type ValidationBatches = Box<dyn Iterator<Item = anyhow::Result<Batch>> + Send>;

/// What a checkpoint remembers of one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceRecord {
    /// Names the dataset's content wherever its folder is.
    pub fingerprint: String,
    /// Episodes of the dataset.
    pub num_episodes: u64,
    /// Episodes held out for validation.
    pub held_out: Vec<u64>,
}

/// The data of a run.
pub trait TrainingData {
    /// The sources by name; empty for data that is not stored.
    fn sources(&self) -> BTreeMap<String, SourceRecord>;

    /// By source the fraction of the training samples that it should have; empty where there is nothing to divide.
    fn target_shares(&self) -> BTreeMap<String, f64> {
        BTreeMap::new()
    }

    /// By source how much of the training data shows its actions; empty for data that is not stored.
    fn label_shares(&self) -> BTreeMap<String, LabelShare> {
        BTreeMap::new()
    }

    /// Opens this process's part of the training stream at `position`.
    ///
    /// # Errors
    /// Data that cannot be read, or a position outside of it.
    fn train(&mut self, position: Position, world: &World) -> anyhow::Result<Box<dyn BatchStream>>;

    /// Opens this process's part of the validation set, at most `limit_batches` batches of it.
    ///
    /// # Errors
    /// Data that cannot be read.
    fn validation(&mut self, limit_batches: Option<usize>, world: &World) -> anyhow::Result<ValidationBatches>;
}

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
    /// No episode is held out, none is long enough, or a batch exceeds the byte budget.
    pub fn new(train: Arc<Mixture>, validation: Arc<Mixture>, seed: u64) -> anyhow::Result<Self> {
        Loader::check(&train, Split::Train, Shard::SINGLE)?;
        Loader::check(&validation, Split::Validation, Shard::SINGLE)?;
        Ok(Self { train, validation, seed })
    }

    /// The opened datasets of the training.
    pub fn mixture(&self) -> &Arc<Mixture> {
        &self.train
    }
}

impl TrainingData for LoaderData {
    fn sources(&self) -> BTreeMap<String, SourceRecord> {
        let record = |source: &Source| SourceRecord {
            fingerprint: source.description().fingerprint.clone(),
            num_episodes: source.description().num_episodes,
            held_out: source.episodes(Split::Validation).iter().map(|span| span.episode).collect(),
        };
        self.train.sources().iter().map(|source| (source.name().to_owned(), record(source))).collect()
    }

    fn target_shares(&self) -> BTreeMap<String, f64> {
        let shares: BTreeMap<_, _> = self.train.target_shares().map(|(name, share)| (name.to_owned(), share)).collect();
        if shares.len() > 1 { shares } else { BTreeMap::new() }
    }

    fn label_shares(&self) -> BTreeMap<String, LabelShare> {
        self.train.label_shares()
    }

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
