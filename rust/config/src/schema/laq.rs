//! The whole tree of stage 1.

use super::{
    ClusterConfig, DataConfig, ExperimentConfig, LoggingConfig, PathsConfig, Precision, SweepConfig, TrainingConfig,
    ValidationConfig,
};
use serde::{Deserialize, Serialize};

/// Everything that `hlrp train-laq` reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaqConfig {
    /// Seed of everything random.
    pub seed: u64,
    /// Number format.
    pub precision: Precision,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// CPU threads; all cores when null.
    pub num_threads: Option<usize>,
    /// Name of the run.
    pub experiment: ExperimentConfig,
    /// Where things are stored.
    pub paths: PathsConfig,
    /// What is written.
    pub logging: LoggingConfig,
    /// Where the run computes, and where it may write.
    pub cluster: ClusterConfig,
    /// Several runs of the experiment.
    pub sweep: SweepConfig,
    /// The model.
    pub model: LaqModelConfig,
    /// The data.
    pub data: DataConfig,
    /// The optimization.
    pub training: TrainingConfig,
    /// The validation.
    pub validation: ValidationConfig,
}

/// Section `model` of stage 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // each key is explained beside its default in config/model/laq_pixel.yaml
pub struct LaqModelConfig {
    pub name: String,
    pub image_size: i64,
    pub patch_size: i64,
    pub channels: i64,
    pub dim: i64,
    pub heads: i64,
    pub dim_head: i64,
    pub spatial_depth: i64,
    pub temporal_depth: i64,
    pub attn_dropout: f64,
    pub ff_dropout: f64,
    pub quant_dim: i64,
    pub codebook_size: i64,
    pub code_seq_len: i64,
    pub vq_discarding_threshold: f64,
    pub codebook_replace_schedule: Vec<[u64; 2]>,
    pub usage_decay: f64,
    pub collapse_perplexity: f64,
    pub latent_ablation: LatentAblation,
    pub token_decoder: DecoderConfig,
    pub pixel_decoder: DecoderConfig,
    pub aux_decoder: DecoderConfig,
}

/// Whether the decoders see the sample's own codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LatentAblation {
    /// Own codes.
    None,
    /// Another sample's codes: a control.
    PermuteBatch,
}

/// One decoder of the latent action model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderConfig {
    /// Whether it exists.
    pub enabled: bool,
    /// Transformer layers.
    pub depth: i64,
    /// Factor on its loss.
    pub loss_weight: f64,
    /// Steps over which the factor rises linearly from 0.
    pub warmup_steps: u64,
}
