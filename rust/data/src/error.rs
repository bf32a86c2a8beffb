//! What can go wrong between a dataset's files and a batch.

use std::path::{Path, PathBuf};

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
    /// A folder does not hold a dataset that can be read.
    #[error("{root}: {what}\nhint: {hint}", root = root.display())]
    Dataset {
        /// Folder of the dataset.
        root: PathBuf,
        /// What is wrong with it.
        what: String,
        /// What to do.
        hint: String,
    },
    /// A file of a dataset does not hold what it should.
    #[error("{path}: {what}\nhint: {hint}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// What to do.
        hint: String,
    },
    /// A dataset has no such feature, or one of another kind.
    #[error("{root}: {what}\nhint: {hint}", root = root.display())]
    Feature {
        /// Folder of the dataset.
        root: PathBuf,
        /// The key that was asked for and what is wrong with it.
        what: String,
        /// Which keys there are.
        hint: String,
    },
    /// One frame of a dataset cannot be had.
    #[error("{path}: episode {episode}, frame at {wanted_s:.6} s of the file: {what}\nhint: {hint}", path = path.display())]
    Frame {
        /// The file that should hold it.
        path: PathBuf,
        /// Index of the episode.
        episode: u64,
        /// Time of the frame in the file, seconds.
        wanted_s: f64,
        /// What is wrong.
        what: String,
        /// What to do.
        hint: String,
    },
    /// Samples cannot be drawn or loaded.
    #[error(transparent)]
    Load(#[from] crate::LoadError),
}

impl DataError {
    /// Attaches a path to an I/O error.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    /// A file of a dataset does not hold what it should.
    pub(crate) fn file(path: &Path, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::File { path: path.to_owned(), what: what.into(), hint: hint.into() }
    }
}
