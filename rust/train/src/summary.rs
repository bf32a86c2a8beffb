//! How a run ended.

use crate::checkpoint::BestScore;
use std::path::PathBuf;

/// Whether a run reached its end.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// All steps are done.
    Finished(Summary),
    /// A signal stopped it; its last checkpoint holds everything.
    Interrupted(Summary),
}

impl Outcome {
    /// What the run leaves behind.
    pub fn summary(&self) -> &Summary {
        match self {
            Self::Finished(summary) | Self::Interrupted(summary) => summary,
        }
    }
}

/// What a run leaves behind, for a closing table.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Optimizer steps done, those before a resume included.
    pub step: u64,
    /// Optimizer steps of this process; none when the run to resume had finished.
    pub num_steps: u64,
    /// Best score so far and the step that reached it.
    pub best: Option<BestScore>,
    /// Metrics of the newest validation in this process, by full name.
    pub validation: Option<std::collections::BTreeMap<String, f64>>,
    /// Newest checkpoint.
    pub checkpoint: Option<PathBuf>,
    /// Samples per second of training time in this process, validation and checkpoints left out.
    pub samples_per_sec: f64,
    /// Fraction of the training time spent waiting for data, 0 to 1.
    pub data_wait_fraction: f64,
    /// Most memory taken, in bytes: device memory on a GPU, resident memory on the CPU.
    pub peak_memory_bytes: Option<u64>,
}
