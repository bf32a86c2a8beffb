//! Where batches come from.

use hlrp_data::{Batch, Position};

/// An endless stream of training batches that knows its place.
pub trait BatchStream: Send {
    /// The next batch.
    ///
    /// # Errors
    /// Data that cannot be read; the stream is then over.
    fn next_batch(&mut self) -> anyhow::Result<Batch>;

    /// The place behind the last batch that [`BatchStream::next_batch`] returned: a stream opened there gives the batches that
    /// would have followed.
    fn position(&self) -> Position;
}

/// Batches of one validation, the same in the same order every time.
pub type ValidationBatches = Box<dyn Iterator<Item = anyhow::Result<Batch>>>;

/// The data of a run.
pub trait TrainingData {
    /// Opens the training stream at `position`.
    ///
    /// # Errors
    /// Data that cannot be read, or a position outside of it.
    fn train(&mut self, position: Position) -> anyhow::Result<Box<dyn BatchStream>>;

    /// Opens the validation set, at most `limit_batches` batches of it.
    ///
    /// # Errors
    /// Data that cannot be read.
    fn validation(&mut self, limit_batches: Option<usize>) -> anyhow::Result<ValidationBatches>;
}
