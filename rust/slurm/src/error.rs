//! Errors of submission.

use crate::client::SlurmError;
use hlrp_config::{Hint, Problem};
use hlrp_track::TrackError;
use std::{io, path::Path, path::PathBuf};

/// Result of this crate.
pub type Result<T> = std::result::Result<T, SubmitError>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The system refused.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// Verb.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file of a submission is damaged.
    #[error("{} is damaged: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Track(#[from] TrackError),
    /// An invalid setting.
    #[error(transparent)]
    Problem(#[from] Problem),
    /// A command of Slurm failed.
    #[error(transparent)]
    Slurm(#[from] SlurmError),
    /// Not inside a job.
    #[error("{0} is not set: this is not inside a Slurm job")]
    NoJob(&'static str),
}

impl SubmitError {
    /// Makes an [`SubmitError::Io`] of the system's error.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_path_buf(), source }
    }
}

impl Hint for SubmitError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Malformed { .. } => Some("submit the run again into a new directory".into()),
            Self::Io { .. } => None,
            Self::Track(error) => error.hint(),
            Self::Slurm(error) => error.hint(),
            Self::Problem(problem) => problem.hint(),
            Self::NoJob(_) => Some("batch scripts of `hlrp submit` call this command".into()),
        }
    }
}
