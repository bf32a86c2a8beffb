//! The seam between what stores a dataset's table (states, actions, tasks, episodes) and what loads samples.

use crate::{DataError, EpisodeSpan};

/// What a sample holds besides its images. Called by many threads at once.
pub trait SampleRows: Send + Sync {
    /// Frames per second.
    fn fps(&self) -> f64;

    /// All episodes, ordered by their rows.
    fn episodes(&self) -> Vec<EpisodeSpan>;

    /// Entries per row of a numeric feature, flattened.
    ///
    /// # Errors
    /// The feature does not exist or is not numeric.
    fn vector_width(&self, key: &str) -> Result<usize, DataError>;

    /// Reads a numeric feature at the global rows `rows` into `out_TN` (`float32 [T, width]`).
    ///
    /// # Errors
    /// Names the file and the column that cannot be read.
    fn read_vectors(&self, key: &str, rows: &[u64], out_TN: &mut [f32]) -> Result<(), DataError>;

    /// Instruction at a global row.
    ///
    /// # Errors
    /// Names the file that cannot be read or the row without a task.
    fn task(&self, row: u64) -> Result<String, DataError>;
}
