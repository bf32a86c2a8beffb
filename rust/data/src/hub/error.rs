//! Why something could not be fetched from the Hub.

use hlrp_config::Hint;
use hlrp_track::TrackError;
use std::{io, path::PathBuf};

/// An error of the Hub, or of what is kept of it. No text has a token or a signed address.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Nothing may be fetched.
    #[error("{what} is not in the cache, and HF_HUB_OFFLINE is set")]
    Offline {
        /// What would have been fetched.
        what: String,
    },
    /// The Hub does not give it.
    #[error("{url}: {reason}")]
    Refused {
        /// The address, without its query.
        url: String,
        /// What it answered.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// No try succeeded.
    #[error("{url}: {reason}; gave up after {num_tries} tries")]
    Unreachable {
        /// The address, without its query.
        url: String,
        /// Why the last try failed.
        reason: String,
        /// Tries.
        num_tries: u32,
    },
    /// What arrived is not what the Hub says it has.
    #[error("{url}: {what}")]
    Damaged {
        /// The address, without its query.
        url: String,
        /// What is wrong.
        what: String,
    },
    /// A repository is not a dataset or a model that can be read.
    #[error("{repo}: {what}")]
    Repository {
        /// Its name and revision.
        repo: String,
        /// What is wrong with it.
        what: String,
        /// What to do.
        hint: String,
    },
    /// A file of the cache cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The disk has no room, or the cache cannot be written.
    #[error("{0}")]
    Track(#[from] TrackError),
}

impl HubError {
    /// Attaches a path to an I/O error.
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

impl Hint for HubError {
    fn hint(&self) -> Option<String> {
        const AGAIN: &str = "run the command again: it continues where it was";
        Some(match self {
            Self::Offline { .. } => "unset HF_HUB_OFFLINE, or download on a machine with network access".to_owned(),
            Self::Refused { hint, .. } | Self::Repository { hint, .. } => hint.clone(),
            Self::Unreachable { .. } => format!("check the network and HF_ENDPOINT, then {AGAIN}"),
            Self::Damaged { .. } => format!("{AGAIN}; if it stays, the copy at HF_ENDPOINT is damaged"),
            Self::Io { .. } => return None,
            Self::Track(TrackError::NoSpace { .. } | TrackError::NoFiles { .. }) => {
                "make room, choose fewer cameras or episodes of a dataset, or name another folder (--cache-dir, or HF_HUB_CACHE); \
                 logging.min_free_gb stays free"
                    .to_owned()
            }
            Self::Track(error) => return error.hint(),
        })
    }
}
