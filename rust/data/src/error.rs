//! What can go wrong between a dataset's files and a batch.

use std::path::PathBuf;

/// An error of this crate. Its text names the file or key and what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file or folder cannot be read.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// What was read.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
}
