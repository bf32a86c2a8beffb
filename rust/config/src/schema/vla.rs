//! The whole tree of stage 2.

use super::{
    ClusterConfig, DataConfig, ExperimentConfig, LoggingConfig, PathsConfig, Precision, SweepConfig, TrainingConfig,
    ValidationConfig,
};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Everything that `hlrp train-vla` reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VlaConfig {
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
    /// The policy and its teacher.
    pub model: VlaModelConfig,
    /// The data.
    pub data: DataConfig,
    /// The optimization.
    pub training: TrainingConfig,
    /// The validation.
    pub validation: VlaValidationConfig,
}

/// Section `model` of stage 2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // each key is explained beside its default in config/model/vla_expert.yaml
pub struct VlaModelConfig {
    pub name: String,
    pub arch: VlaArch,
    pub mode: VlaMode,
    pub latent_loss_weight: f64,
    pub action_loss_weight: f64,
    pub cameras: Vec<String>,
    pub num_empty_cameras: usize,
    pub image_size: [i64; 2],
    pub frame_size: Option<[usize; 2]>,
    pub backbone: BackboneConfig,
    pub init_from: Option<PathBuf>,
    pub tokenizer: Option<PathBuf>,
    pub prompt: PromptOptions,
    pub normalization: NormalizationOptions,
    pub freeze: FreezeOptions,
    pub expert: ExpertOptions,
    pub state: StateOptions,
    pub action: ActionOptions,
    pub flow: FlowOptions,
    pub laq: TeacherOptions,
}

/// Architecture of the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VlaArch {
    /// A flow-matching expert beside the backbone.
    Expert,
    /// Small heads on the backbone's averaged features.
    Pooled,
}

/// What the policy learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VlaMode {
    /// The teacher's latent actions.
    Latent,
    /// Real actions.
    Actions,
    /// Both.
    Multitask,
}

/// Where the backbone comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct BackboneConfig {
    pub path: Option<String>,
    pub hub_cache: PathBuf,
    pub num_text_layers: Option<i64>,
    pub sizes: Option<BackboneSizes>,
}

/// Sizes of a backbone, under transformers' names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct BackboneSizes {
    pub vision: VisionSizes,
    pub text: TextSizes,
    pub scale_factor: i64,
    pub image_token_id: i64,
    pub tie_word_embeddings: bool,
}

/// Sizes of the vision tower.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct VisionSizes {
    pub hidden_size: i64,
    pub intermediate_size: i64,
    pub num_hidden_layers: i64,
    pub num_attention_heads: i64,
    pub image_size: i64,
    pub patch_size: i64,
    pub layer_norm_eps: f64,
}

/// Sizes of the text decoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct TextSizes {
    pub hidden_size: i64,
    pub intermediate_size: i64,
    pub num_hidden_layers: i64,
    pub num_attention_heads: i64,
    pub num_key_value_heads: i64,
    pub head_dim: i64,
    pub rms_norm_eps: f64,
    pub rope_theta: f64,
    pub vocab_size: i64,
}

/// How an instruction becomes tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct PromptOptions {
    pub system_prompt: String,
    pub newline: bool,
    pub max_length: usize,
    pub pad_to_max_length: bool,
}

/// How states and actions are scaled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct NormalizationOptions {
    pub state: FeatureScaling,
    pub action: FeatureScaling,
}

/// How one feature is scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureScaling {
    /// Not at all.
    Identity,
    /// To mean 0 and deviation 1.
    MeanStd,
    /// Smallest and largest value to −1 and 1.
    MinMax,
    /// 1 % and 99 % quantile to −1 and 1.
    Quantiles,
}

/// What does not train.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct FreezeOptions {
    pub backbone: bool,
    pub vision_encoder: bool,
    pub state_proj: bool,
}

/// The expert beside the backbone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ExpertOptions {
    pub num_layers: Option<i64>,
    pub width_multiplier: f64,
    pub self_attn_every_n_layers: i64,
    pub prefix_length: Option<i64>,
    pub image_special_tokens: bool,
}

/// The robot's state as an input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct StateOptions {
    pub max_dim: i64,
}

/// Real actions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ActionOptions {
    pub chunk_size: i64,
    pub dim: Option<i64>,
    pub max_dim: i64,
}

/// The flow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct FlowOptions {
    pub num_steps: i64,
    pub min_period: f64,
    pub max_period: f64,
    pub time_beta_alpha: f64,
    pub time_beta_beta: f64,
}

/// The latent action model that labels frame pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct TeacherOptions {
    pub checkpoint: Option<PathBuf>,
    pub weights: TeacherWeights,
    pub camera: String,
    pub codebook_size: Option<i64>,
    pub code_seq_len: Option<i64>,
    pub code_dim: Option<i64>,
}

/// Which weights the teacher has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TeacherWeights {
    /// Those of its checkpoint.
    Trained,
    /// Fresh ones: the control experiment.
    Random,
}

/// Section `validation` of stage 2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VlaValidationConfig {
    /// Training steps between validations.
    pub check_interval: u64,
    /// Most batches of one validation; all when null.
    pub limit_batches: Option<usize>,
    /// Samples in the pictures.
    pub num_fixed_samples: usize,
    /// Draws of the flow whose mean is compared with the truth.
    pub num_flow_samples: usize,
}

impl VlaMode {
    /// Whether latent actions are learned, and a teacher is needed.
    pub fn with_latents(self) -> bool {
        self != Self::Actions
    }

    /// Whether real actions are learned.
    pub fn with_actions(self) -> bool {
        self != Self::Latent
    }
}

impl VlaValidationConfig {
    /// What the engine reads.
    pub fn shared(&self) -> ValidationConfig {
        ValidationConfig {
            check_interval: self.check_interval,
            limit_batches: self.limit_batches,
            num_fixed_samples: self.num_fixed_samples,
        }
    }
}
