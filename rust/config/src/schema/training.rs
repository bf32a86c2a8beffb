//! Sections `training` and `validation`.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Section `training`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingConfig {
    /// Optimizer steps of the whole run.
    pub max_steps: u64,
    /// Steps between log lines.
    pub log_every_n_steps: u64,
    /// AdamW.
    pub optimizer: OptimizerConfig,
    /// Learning rate over time.
    pub scheduler: SchedulerConfig,
    /// Clipping and accumulation.
    pub gradient: GradientConfig,
    /// Average of the weights.
    pub ema: EmaConfig,
    /// What is saved when.
    pub checkpoint: CheckpointConfig,
    /// Checkpoint folder or run directory to continue from.
    pub resume_from_checkpoint: Option<PathBuf>,
    /// Checkpoint folder or weight file to start from.
    pub load_weights_from: Option<PathBuf>,
}

/// AdamW.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Base learning rate.
    pub lr: f64,
    /// Decay of the two moments.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay of parameters with two or more dimensions.
    pub weight_decay: f64,
}

/// Learning rate over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchedulerConfig {
    /// Shape.
    #[serde(rename = "type")]
    pub kind: SchedulerType,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// Rate at step 0.
    pub warmup_start_lr: f64,
    /// Rate at the end.
    pub min_lr: f64,
}

/// Shape of the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SchedulerType {
    /// Linear warm-up, then half a cosine.
    Cosine,
    /// Constant.
    None,
}

/// Clipping and accumulation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GradientConfig {
    /// Largest global L2 norm; no clipping when null.
    pub clip_norm: Option<f64>,
    /// Batches per optimizer step.
    pub accumulate_steps: u64,
}

/// Exponential moving average of the weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmaConfig {
    /// Whether it is kept, and used by validation.
    pub enabled: bool,
    /// Share of the old average.
    pub decay: f64,
    /// Steps between updates.
    pub update_every_n_steps: u64,
    /// Updates begin after this step.
    pub update_after_step: u64,
}

/// What is saved when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointConfig {
    /// Steps between checkpoints; one is also written at the end.
    pub every_n_steps: u64,
    /// Newest checkpoints kept; all when null.
    pub keep_last: Option<usize>,
    /// Validation metric that scores a checkpoint.
    pub monitor: String,
    /// Which direction is better.
    pub mode: MonitorMode,
}

/// Which direction of a score is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum MonitorMode {
    Min,
    Max,
}

/// Section `validation`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationConfig {
    /// Training steps between validations.
    pub check_interval: u64,
    /// Most batches of one validation; all when null.
    pub limit_batches: Option<usize>,
    /// Pairs in the reconstruction picture.
    pub num_fixed_samples: usize,
}
