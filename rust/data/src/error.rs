//! What can go wrong between a dataset's files and a batch.

use crate::hub::HubError;
use hlrp_config::{Hint, Problem};
use hlrp_track::{TrackError, exit_code};
use std::error::Error;
use std::path::{Path, PathBuf};

/// An error of this crate. Its text names the file or key; its hint says what to do.
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
    /// A folder is not a dataset that can be read.
    #[error("{root}: {what}", root = root.display())]
    Dataset {
        /// Folder of the dataset.
        root: PathBuf,
        /// What is wrong with it.
        what: String,
        /// What to do.
        hint: String,
    },
    /// A file does not contain what it should.
    #[error("{path}: {what}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// What to do.
        hint: String,
    },
    /// A dataset has no such feature, or one of another kind.
    #[error("{root}: {what}", root = root.display())]
    Feature {
        /// Folder of the dataset.
        root: PathBuf,
        /// The key that was asked for and what is wrong with it.
        what: String,
        /// Which keys there are.
        hint: String,
    },
    /// One frame of a dataset cannot be read.
    #[error("{path}: episode {episode}, frame at {wanted_s:.6} s of the file: {what}", path = path.display())]
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
    /// A source of a run cannot be opened.
    #[error("source `{name}`: {source}")]
    Source {
        /// Its name in the configuration.
        name: String,
        /// Why.
        source: Box<DataError>,
    },
    /// The disk has no room for a cache or an index.
    #[error("{source}")]
    Space {
        /// The sizes.
        source: Box<TrackError>,
        /// What to do; `logging.min_free_gb` stays free.
        hint: &'static str,
    },
    /// A dataset cannot be fetched from the Hub.
    #[error("{0}")]
    Hub(#[from] HubError),
    /// A setting is invalid, by itself or for the data.
    #[error("{0}")]
    Problem(#[from] Problem),
    /// Samples cannot be drawn or loaded.
    #[error("{0}")]
    Load(#[from] LoadError),
}

impl DataError {
    /// A disk without room, from the error that says so.
    pub(crate) fn space(hint: &'static str) -> impl Fn(TrackError) -> Self + Copy {
        move |source| Self::Space { source: Box::new(source), hint }
    }

    /// Attaches a path to an I/O error.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    /// Names the source that cannot be opened, where the error is about a file of it.
    #[must_use]
    pub(crate) fn of_source(self, name: &str) -> Self {
        match self {
            Self::Problem(_) | Self::Load(_) | Self::Hub(_) | Self::Space { .. } | Self::Source { .. } => self,
            error => Self::Source { name: name.to_owned(), source: Box::new(error) },
        }
    }

    /// A file does not contain what it should.
    pub(crate) fn file(path: &Path, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::File { path: path.to_owned(), what: what.into(), hint: hint.into() }
    }
}

/// What to do where an index or scores of a dataset do not fit.
pub(crate) const INDEX_SPACE: &str = "set data.cache.dir to a folder on a larger disk";

impl Hint for DataError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Io { source, .. } => source.get_ref().and_then(|cause| cause.downcast_ref::<HubError>()?.hint()),
            Self::Source { name, source } => Some(source.hint().unwrap_or_else(|| {
                format!("check data.sources.{name}.root, or leave the source out: ~data.sources.{name}")
            })),
            Self::Dataset { hint, .. } | Self::File { hint, .. } => Some(hint.clone()),
            Self::Feature { hint, .. } | Self::Frame { hint, .. } => Some(hint.clone()),
            Self::Space { hint, .. } => Some(format!("{hint}; logging.min_free_gb stays free")),
            Self::Hub(error) => error.hint(),
            Self::Problem(problem) => problem.hint(),
            Self::Load(error) => error.hint(),
        }
    }
}

/// Why a frame cannot be read, and what to do. The error of its store adds the file, the episode and the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FrameFailure {
    pub(crate) what: String,
    pub(crate) hint: &'static str,
}

/// Exit code of a program that ends on damaged or unsuitable data; none where `error` is something else.
pub fn exit_code_of(error: &(dyn Error + 'static)) -> Option<u8> {
    let is_of_data = match error.downcast_ref::<DataError>() {
        Some(DataError::Problem(_) | DataError::Hub(_) | DataError::Space { .. } | DataError::Load(_)) => false,
        Some(_) => true,
        None => matches!(
            error.downcast_ref::<LoadError>(),
            Some(LoadError::TooManyBadSamples { .. } | LoadError::TooManyBadSamplesOfAll { .. })
        ),
    };
    is_of_data.then_some(exit_code::DATA)
}

/// An error of sampling or loading.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A rank that does not exist.
    #[error("rank {rank} of {world} processes does not exist")]
    Shard {
        /// Rank of the process.
        rank: u64,
        /// Number of processes.
        world: u64,
    },
    /// A position that belongs to other data.
    #[error("cannot continue at sample {sample}: an epoch has {num_anchors} samples")]
    Position {
        /// Samples consumed.
        sample: u64,
        /// Anchors of an epoch.
        num_anchors: u64,
    },
    /// More samples failed than allowed.
    #[error(
        "{num_bad} samples could not be decoded, data.loader.max_bad_samples allows {max_bad}; the last: source \
         `{source_name}`, episode {episode}, frame {frame}: {source}"
    )]
    TooManyBadSamples {
        /// Failed so far.
        num_bad: u64,
        /// Allowed.
        max_bad: u64,
        /// Source of the last one.
        source_name: String,
        /// Its episode.
        episode: u64,
        /// Its anchor frame within the episode.
        frame: u64,
        /// Why it failed.
        source: Box<DataError>,
    },
    /// More samples failed in all processes together than allowed; no single process had that many.
    #[error("{num_bad} samples of all processes could not be decoded, data.loader.max_bad_samples allows {max_bad}")]
    TooManyBadSamplesOfAll {
        /// Failed so far.
        num_bad: u64,
        /// Allowed.
        max_bad: u64,
    },
    /// The loader was opened by another process: a fork does not copy its threads.
    #[error("this loader belongs to process {owner}, and this is process {own}")]
    Forked {
        /// The process that opened it.
        owner: u32,
        /// This process.
        own: u32,
    },
    /// A decode thread panicked.
    #[error("a decode thread failed at source `{source_name}`, episode {episode}, frame {frame}: {message}")]
    WorkerPanicked {
        /// Source of the sample.
        source_name: String,
        /// Its episode.
        episode: u64,
        /// Its anchor frame within the episode.
        frame: u64,
        /// Text of the panic.
        message: String,
    },
    /// Threads cannot be started.
    #[error("cannot start a decode thread: {0}")]
    Thread(std::io::Error),
    /// The loader failed before.
    #[error("the loader has stopped after an earlier error")]
    Stopped,
}

impl LoadError {
    /// Refuses any process but `owner`, which started the threads.
    ///
    /// # Errors
    /// [`LoadError::Forked`].
    pub fn refuse_fork(owner: u32) -> Result<(), Self> {
        let own = std::process::id();
        if owner == own { Ok(()) } else { Err(Self::Forked { owner, own }) }
    }
}

impl Hint for LoadError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Shard { .. } => "ranks count from 0".to_owned(),
            Self::Position { .. } => {
                "the checkpoint was written with other data.sources or data.request; resume with the \
                                      ones in its config.yaml"
                    .to_owned()
            }
            Self::TooManyBadSamples { source_name, .. } => format!(
                "`hlrp data check` lists what is broken; repair it, leave the episode out with \
                 data.sources.{source_name}.episodes, or raise the limit"
            ),
            Self::TooManyBadSamplesOfAll { .. } => {
                "the warnings above name them, and `hlrp data check` lists what is broken; repair it, leave the \
                 episodes out with data.sources.<name>.episodes, or raise the limit"
                    .to_owned()
            }
            Self::Forked { .. } => {
                "open the dataset in the worker process, or start workers with the method `spawn`".to_owned()
            }
            Self::WorkerPanicked { .. } => "this is a defect of this program; please report it".to_owned(),
            Self::Thread(_) => "lower data.loader.num_workers".to_owned(),
            Self::Stopped => return None,
        };
        Some(hint)
    }
}
