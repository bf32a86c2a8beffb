//! The source of batches.

use hlrp_data::{Batch, Position};
use hlrp_torch::World;

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
pub type ValidationBatches = Box<dyn Iterator<Item = anyhow::Result<Batch>>>;

/// The data of a run.
pub trait TrainingData {
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
