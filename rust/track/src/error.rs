//! The one error type of this crate. What to do about an error is its [`Hint`].

use crate::fs::Limit;
use hlrp_config::{Hint, Problem};
use std::{io, path::Path, path::PathBuf};

/// What can go wrong while a run is recorded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrackError {
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried, such as `write`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A write would fill the disk.
    #[error(
        "not enough free space for {path}: {free_gib:.2} GiB free {limit}, the write needs {needed_gib:.2} GiB and \
         must leave {floor_gib:.2} GiB"
    )]
    NoSpace {
        /// Where the write would go.
        path: PathBuf,
        /// What is nearly full.
        limit: Limit,
        /// GiB free now.
        free_gib: f64,
        /// GiB of the write.
        needed_gib: f64,
        /// GiB that must remain.
        floor_gib: f64,
    },
    /// A write would use the last files (inodes).
    #[error("too few files are left for {path}: {free} may still be made {limit}, and {floor} must stay free")]
    NoFiles {
        /// Where the write would go.
        path: PathBuf,
        /// What is nearly full.
        limit: Limit,
        /// Files that may still be made.
        free: u64,
        /// Files that must remain.
        floor: u64,
    },
    /// Something that would be replaced already exists.
    #[error("{path} already exists")]
    Exists {
        /// The file or folder.
        path: PathBuf,
    },
    /// An invalid setting, such as a run directory that is not empty.
    #[error("{0}")]
    Problem(#[from] Problem),
    /// A directory without a manifest.
    #[error("{path} is not a run directory: {missing} is missing")]
    NotARun {
        /// The directory.
        path: PathBuf,
        /// The file that every run has.
        missing: String,
    },
    /// Another process writes this run.
    #[error("run directory {path} is in use by {owner}")]
    RunLocked {
        /// The directory.
        path: PathBuf,
        /// Process and host.
        owner: String,
    },
    /// A file does not have the expected content.
    #[error("{path}{}: {reason}", line.map(|line| format!(", line {line}")).unwrap_or_default())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// 1-based line, where it is known.
        line: Option<usize>,
        /// What is wrong.
        reason: String,
    },
    /// A reserved metric name.
    #[error("a metric cannot be named {name:?}: every line of metrics.jsonl already has that key")]
    ReservedMetric {
        /// The name.
        name: String,
    },
    /// An image could not be drawn.
    #[error("cannot draw {path}: {reason}")]
    Plot {
        /// The image file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The console can be set up once for each process.
    #[error("the console of this process is already set up")]
    ConsoleTwice,
    /// The W&B service refuses a run, or does not answer.
    #[error("W&B: {reason}")]
    Wandb {
        /// What it said.
        reason: String,
    },
    /// Training was started on a login node.
    #[error("{program} does not train on a login node ({host}: {reason})")]
    LoginNode {
        /// Program that was refused.
        program: String,
        /// This host.
        host: String,
        /// Why it looks like a login node.
        reason: String,
    },
}

impl Hint for TrackError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoSpace { limit: Limit::Quota, .. } => {
                "ask for a larger quota, or choose another folder with paths.root=…; the minimum is logging.min_free_gb"
            }
            Self::NoFiles { .. } => {
                "pack small files into large ones, or choose another folder with paths.root=…; the minimum is logging.min_free_files"
            }
            Self::NoSpace { .. } => {
                "free space on that disk, or choose another with paths.root=…; the minimum is logging.min_free_gb"
            }
            Self::Exists { .. } => "move it away or choose another name",
            Self::Problem(problem) => return problem.hint(),
            Self::NotARun { .. } => "give the folder that contains run.json and checkpoints/",
            Self::RunLocked { .. } => "wait for that process, or choose another logging.run_dir",
            Self::LoginNode { .. } => {
                "submit the job, or start it inside an allocation (salloc, srun); if this is not a login node, \
                 --allow-login-node starts it once, and cluster.login_nodes=[] in the user file always"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

impl TrackError {
    /// For `map_err`: an [`TrackError::Io`] that says what was tried on which path.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}
