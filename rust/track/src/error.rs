//! The one error type of this crate. Each text names the file and, where there is something to do, ends in a `hint:`.

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
        "not enough free space for {path}: {free_gib:.2} GiB free, the write needs {needed_gib:.2} GiB and \
         must leave {floor_gib:.2} GiB\nhint: free space on that disk, or choose another with paths.root=…; \
         the floor is logging.min_free_gb"
    )]
    NoSpace {
        /// Where the write would go.
        path: PathBuf,
        /// GiB free now.
        free_gib: f64,
        /// GiB of the write.
        needed_gib: f64,
        /// GiB that must remain.
        floor_gib: f64,
    },
    /// Something that would be replaced is already there.
    #[error("{path} already exists\nhint: move it away or choose another name")]
    Exists {
        /// The file or folder.
        path: PathBuf,
    },
    /// The directory of a new run holds something.
    #[error(
        "run directory {path} is not empty (it holds {entry})\nhint: continue that run with --resume {path}, or \
         choose another directory with logging.run_dir=…"
    )]
    RunExists {
        /// The directory.
        path: PathBuf,
        /// One of the things in it.
        entry: String,
    },
    /// A directory without a manifest.
    #[error(
        "{path} is not a run directory: {missing} is missing\nhint: give the folder that holds manifest.json and checkpoints/"
    )]
    NotARun {
        /// The directory.
        path: PathBuf,
        /// The file that every run has.
        missing: String,
    },
    /// Another process writes this run.
    #[error(
        "run directory {path} is in use by {owner}\nhint: wait for that process, or choose another logging.run_dir"
    )]
    RunLocked {
        /// The directory.
        path: PathBuf,
        /// Process and host.
        owner: String,
    },
    /// A file is not what its name promises.
    #[error("{path}{}: {reason}", line.map(|line| format!(", line {line}")).unwrap_or_default())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// 1-based line, where it is known.
        line: Option<usize>,
        /// What is wrong.
        reason: String,
    },
    /// A metric cannot be called that.
    #[error("a metric may not be called {name:?}: every line of metrics.jsonl has that key already")]
    ReservedMetric {
        /// The name.
        name: String,
    },
    /// A picture could not be drawn.
    #[error("cannot draw {path}: {reason}")]
    Plot {
        /// The picture.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The console can be set up once for each process.
    #[error("the console of this process is already set up")]
    ConsoleTwice,
    /// Training was started where it must not run.
    #[error(
        "{program} does not train on a login node ({host}: {reason})\nhint: submit the job, or start it inside an \
         allocation (salloc, srun); where this is no login node, --allow-login-node starts it once and cluster.login_nodes=[] in the user \
         file always"
    )]
    LoginNode {
        /// Program that was refused.
        program: String,
        /// This host.
        host: String,
        /// Why it looks like a login node.
        reason: String,
    },
}

impl TrackError {
    /// For `map_err`: an [`TrackError::Io`] that says what was tried on which path.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}
