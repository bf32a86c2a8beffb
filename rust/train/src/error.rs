//! What stops a training run. Each text names the file, key or step and, where there is something to do, ends in a `hint:`.

use hlrp_torch::TorchError;
use hlrp_track::TrackError;
use std::{io, path::PathBuf};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A value of the configuration makes no sense.
    #[error("{key}: {reason}")]
    Setting {
        /// Full key.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The loss or the gradient norm is not a finite number.
    #[error(
        "step {step}: the {quantity} is {value}\n  samples: {samples}\n  last good checkpoint: {checkpoint}\n  \
         hint: look at these samples; continue from that checkpoint with a lower training.optimizer.lr or \
         training.gradient.clip_norm"
    )]
    NotFinite {
        /// 1-based optimizer step that the number belongs to.
        step: u64,
        /// `loss` or `gradient norm`.
        quantity: &'static str,
        /// NaN or an infinity.
        value: f64,
        /// Source, episode and frames of the batch.
        samples: String,
        /// Folder of the newest checkpoint, or that there is none.
        checkpoint: String,
    },
    /// The metric that scores checkpoints is not among those of the validation.
    #[error("training.checkpoint.monitor: the validation gives no metric '{monitor}'\n  hint: choose one of {known}")]
    NoSuchMetric {
        /// The configured name.
        monitor: String,
        /// What there is.
        known: String,
    },
    /// A path that was given as a checkpoint is none.
    #[error(
        "{path}: {reason}\n  hint: give a checkpoint folder (step-000080) or a run directory that holds checkpoints/last"
    )]
    NotACheckpoint {
        /// The path.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// A file of a checkpoint is not what its manifest says.
    #[error("{path}: the checkpoint is damaged: {reason}\n  hint: {hint}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How it differs.
        reason: String,
        /// Which other checkpoint is whole.
        hint: String,
    },
    /// A checkpoint of another version of this program.
    #[error(
        "{path}: checkpoint format {found}, this program reads format {wanted}\n  hint: continue with the version of hlrp that wrote it"
    )]
    FormatVersion {
        /// The manifest.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// Ours.
        wanted: u64,
    },
    /// A run cannot be continued with other settings.
    #[error(
        "{path}: this checkpoint belongs to a run with other settings:\n{differences}\n  \
         hint: set these keys as they were, or start a new run from its weights with training.load_weights_from"
    )]
    Conflict {
        /// The checkpoint.
        path: PathBuf,
        /// One line for each key.
        differences: String,
    },
    /// A weight file cannot be read, or its tensors do not fit.
    #[error("{path}: {source}")]
    Weights {
        /// The weight file.
        path: PathBuf,
        /// What does not fit.
        source: hlrp_nn::NnError,
    },
    /// A parameter that the optimizer cannot train.
    #[error("parameter {name}: {reason}")]
    Parameter {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried, such as `read`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file's text or header cannot be understood.
    #[error("{path}: {reason}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Batches cannot be had.
    #[error(transparent)]
    Data(anyhow::Error),
    /// The model failed.
    #[error(transparent)]
    Task(anyhow::Error),
    /// A setting is invalid, or a configuration cannot be read.
    #[error("{0}")]
    Problem(#[from] hlrp_config::Problem),
    /// libtorch refused.
    #[error(transparent)]
    Torch(#[from] TorchError),
    /// libtorch refused.
    #[error("libtorch: {0}")]
    Tch(#[from] tch::TchError),
    /// The run could not be recorded.
    #[error("{0}")]
    Track(#[from] TrackError),
}

/// Result of this crate.
pub type Result<T, E = TrainError> = std::result::Result<T, E>;

impl TrainError {
    /// For `map_err`: an [`TrainError::Io`] that says what was tried on which path.
    pub(crate) fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}
