//! What can go wrong between a configuration and a batch.

/// An error of sampling or loading.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A configuration value that cannot be used.
    #[error("{key}: {problem}\nhint: {hint}")]
    Setting {
        /// Full path of the key.
        key: String,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// No frame can be an anchor.
    #[error(
        "data.sources: no anchor for {split}: every episode is shorter than data.request.image_deltas reach\n\
         hint: use smaller offsets, more episodes, or another data.sources.<name>.num_val_episodes"
    )]
    NoAnchors {
        /// Training or validation.
        split: &'static str,
    },
    /// A rank that does not exist.
    #[error("rank {rank} of {world} processes does not exist\nhint: ranks count from 0")]
    Shard {
        /// Number of the process.
        rank: u64,
        /// Number of processes.
        world: u64,
    },
    /// A position that belongs to other data.
    #[error(
        "cannot continue at sample {sample}: an epoch has {num_anchors} samples\n\
         hint: the checkpoint was written with other data.sources or data.request; resume with the ones in its config.yaml"
    )]
    Position {
        /// Samples consumed.
        sample: u64,
        /// Anchors of an epoch.
        num_anchors: u64,
    },
    /// More samples failed than allowed.
    #[error(
        "{num_bad} samples could not be decoded, data.loader.max_bad_samples allows {max_bad}; the last: source `{source_name}`, episode {episode}, frame {frame}: {reason}\n\
         hint: `hlrp data check` lists what is broken; repair it, leave the episode out with data.sources.{source_name}.episodes, or raise the limit"
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
        reason: String,
    },
    /// A decode thread panicked.
    #[error(
        "a decode thread failed at source `{source_name}`, episode {episode}, frame {frame}: {message}\nhint: this is a defect of this program; please report it"
    )]
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
    #[error("cannot start a decode thread: {0}\nhint: lower data.loader.num_workers")]
    Thread(std::io::Error),
    /// The loader failed before.
    #[error("the loader has stopped after an earlier error")]
    Stopped,
}

impl LoadError {
    /// A configuration value that cannot be used.
    pub(crate) fn setting(key: &str, problem: &str, hint: &str) -> Self {
        Self::Setting { key: key.to_owned(), problem: problem.to_owned(), hint: hint.to_owned() }
    }
}
