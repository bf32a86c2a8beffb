//! What stops a training run. What to do about an error is its [`Hint`].

use hlrp_config::{Hint, HintOf, Problem, hint_of};
use hlrp_data::{DataError, LoadError};
use hlrp_torch::TorchError;
use hlrp_track::{
    TrackError,
    exit_code::{self, CodeOf},
};
use std::{error::Error, io, path::Path, path::PathBuf};

/// The error types of this crate and below whose hints a program prints.
pub const HINTS: &[HintOf] = &[
    hint_of::<Problem>,
    hint_of::<TrainError>,
    hint_of::<DataError>,
    hint_of::<LoadError>,
    hint_of::<TrackError>,
    hint_of::<TorchError>,
];

/// Exit codes of the errors of this crate and below.
pub const EXIT_CODES: &[CodeOf] = &[of_engine, hlrp_data::exit_code_of];

fn of_engine(error: &(dyn Error + 'static)) -> Option<u8> {
    match error.downcast_ref::<TrainError>()? {
        TrainError::OutOfMemory { .. } => Some(exit_code::OUT_OF_MEMORY),
        TrainError::RanksLost { can_continue, .. } => {
            Some(if *can_continue { exit_code::INTERRUPTED } else { exit_code::RANK_LOST })
        }
        TrainError::OtherRank { code, .. } => Some(*code),
        TrainError::Disagreement { .. } => Some(exit_code::INVALID_SETTING),
        _ => None,
    }
}

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The loss or the gradient norm is not a finite number.
    #[error("step {step}: the {quantity} is {value}\n  samples: {samples}\n  last good checkpoint: {checkpoint}")]
    NotFinite {
        /// 1-based optimizer step.
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
    /// The machine or the GPU has no memory left.
    #[error("out of memory {when}: {message}\n  {sizes}\n  last checkpoint: {checkpoint}")]
    OutOfMemory {
        /// `in step 12`.
        when: String,
        /// What the allocator says.
        message: String,
        /// Settings that decide about memory.
        sizes: String,
        /// Folder of the newest checkpoint, or that there is none.
        checkpoint: String,
    },
    /// The processes of a run were started with different settings.
    #[error("{message}")]
    Disagreement {
        /// The first setting that differs.
        message: String,
        /// What to do.
        hint: &'static str,
    },
    /// Other processes of the run are gone or hang.
    #[error("{what}\n  last checkpoint: {checkpoint}")]
    RanksLost {
        /// Which.
        what: String,
        /// Folder of the newest checkpoint, or that there is none.
        checkpoint: String,
        /// Whether there is a checkpoint of this session, so that trying again is progress.
        can_continue: bool,
        /// Whether this process reports it to the user.
        is_reporter: bool,
        /// The processes that are gone, or hang; none where that is unknown.
        missing: Vec<usize>,
    },
    /// Another process of the run failed, and reports it.
    #[error("rank {rank}: {text}")]
    OtherRank {
        /// Which.
        rank: usize,
        /// Its exit code.
        code: u8,
        /// Its error.
        text: String,
    },
    /// A panic, which is a defect of this program.
    #[error("the program failed: {0}")]
    Panic(String),
    /// A path that was given as a checkpoint is not one.
    #[error("{path}: {reason}", path = path.display())]
    NotACheckpoint {
        /// The path.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// A file of a checkpoint is not what `checkpoint.json` says.
    #[error("{path}: the checkpoint is damaged: {reason}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How it differs.
        reason: String,
        /// Which other checkpoint is whole.
        hint: String,
    },
    /// A checkpoint of another version of this program.
    #[error("{path}: checkpoint format {found}, this program reads format {wanted} and older", path = path.display())]
    FormatVersion {
        /// The file that states it.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// Ours.
        wanted: u64,
    },
    /// A weight file cannot be read, or its tensors do not fit.
    #[error("{path}: {source}", path = path.display())]
    Weights {
        /// The weight file.
        path: PathBuf,
        /// What does not fit.
        source: TorchError,
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
    /// A file with invalid content.
    #[error("{path}: {reason}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The data loader failed.
    #[error("{0}")]
    Data(#[source] anyhow::Error),
    /// The model failed.
    #[error("{0}")]
    Task(#[source] anyhow::Error),
    /// An invalid setting.
    #[error("{0}")]
    Problem(#[from] Problem),
    /// libtorch refused.
    #[error("{0}")]
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

impl Hint for TrainError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotFinite { .. } => "look at these samples; resume from that checkpoint with a lower \
                                       training.optimizer.lr or training.gradient.clip_norm"
                .to_owned(),
            Self::OutOfMemory { .. } => "lower data.loader.batch_size and raise training.gradient.accumulate_steps by the same factor, which --resume \
                                         accepts, or choose a smaller model; on the CPU lower data.loader.memory_budget_mb and num_workers too"
                .to_owned(),
            Self::Disagreement { hint, .. } => (*hint).to_owned(),
            Self::RanksLost { can_continue, .. } => {
                let what = "see the output of these processes, and whether their machines ran out of memory";
                let more = if *can_continue { "; resume from that checkpoint" } else { "" };
                format!("{what}{more}; training.distributed.timeout_s is how long a process waits for another")
            }
            Self::Panic(_) => "this is a defect of this program; please report it with the log".to_owned(),
            Self::NotACheckpoint { .. } => {
                "give a checkpoint folder (step-000080) or a run directory that contains checkpoints/last".to_owned()
            }
            Self::Damaged { hint, .. } => hint.clone(),
            Self::FormatVersion { .. } => "use the version of hlrp that wrote it".to_owned(),
            Self::Weights { source, .. } => return source.hint(),
            Self::Problem(problem) => return problem.hint(),
            Self::Torch(error) => return error.hint(),
            Self::Track(error) => return error.hint(),
            _ => return None,
        })
    }
}

impl TrainError {
    /// For `map_err`: a [`TrainError::Io`] that says what was tried on which path.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}
