//! The whole tree of stage 2.

use crate::data::DataConfig;
use crate::rules::{Checked, at_least, not_negative, positive, require, section};
use crate::run::{TrainingRun, check_training, stage_config};
use crate::training::{TrainingConfig, ValidationConfig};
use hlrp_config::{Check, Problem};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

stage_config! {
    /// Everything that `hlrp train-vla` reads.
    VlaConfig of Vla {
        /// The policy and its teacher.
        model: VlaModelConfig,
        /// The data.
        data: DataConfig,
        /// The optimization.
        training: TrainingConfig,
        /// The validation.
        validation: VlaValidationConfig,
    }
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

impl Check for VlaConfig {
    fn check(&self) -> Checked {
        check_training(&self.run())?;
        section("model", self.model.check())?;
        section("validation", at_least("num_flow_samples", self.validation.num_flow_samples, 1))?;
        self.check_request()?;
        let role = &self.model.laq.camera;
        require(
            !self.model.mode.with_latents()
                || self.data.sources.values().any(|source| source.cameras.contains_key(role)),
            "model.laq.camera",
            format!("no source of data has a camera '{role}'"),
            "name a role of data.sources.<name>.cameras",
        )
    }
}

impl VlaConfig {
    fn check_request(&self) -> Checked {
        let request = &self.data.request;
        require(
            request.image_deltas.first() == Some(&0.0) && request.image_deltas.len() <= 2,
            "data.request.image_deltas",
            "a policy sees the present, and its teacher one later frame",
            "set it to [0], or to the teacher's pair such as [0,5]",
        )?;
        require(
            request.state_deltas.contains(&0.0),
            "data.request.state_deltas",
            "the policy sees the state of the present",
            "let the list contain 0",
        )?;
        let num_actions = request.action_deltas.len() as i64;
        let chunk_size = self.model.action.chunk_size;
        require(
            num_actions == 0 || num_actions == chunk_size || !self.model.mode.with_actions(),
            "data.request.action_deltas",
            format!("{num_actions} offsets for a chunk of model.action.chunk_size = {chunk_size} steps"),
            "give one offset per step, or [] for the frames from the present on",
        )
    }
}

impl Check for VlaModelConfig {
    fn check(&self) -> Checked {
        self.check_loss_weights()?;
        self.check_cameras()?;
        let sides = self.image_size.into_iter().chain(self.frame_size.into_iter().flatten().map(|side| side as i64));
        for (key, side) in ["image_size", "image_size", "frame_size", "frame_size"].into_iter().zip(sides) {
            at_least(key, side, 1)?;
        }
        require(
            self.init_from.is_none() || self.arch == VlaArch::Expert,
            "init_from",
            "only the expert architecture starts from a LeRobot SmolVLA checkpoint",
            "set it to null, or model.arch to expert",
        )?;
        section("backbone", self.backbone.check())?;
        require(
            self.tokenizer.is_some() || self.backbone.path.is_some(),
            "tokenizer",
            "there is no backbone folder whose tokenizer could be taken",
            "give a folder with tokenizer.json and tokenizer_config.json",
        )?;
        require(
            self.arch == VlaArch::Expert || self.action.chunk_size == 1,
            "action.chunk_size",
            format!("{} steps, the pooled architecture predicts one", self.action.chunk_size),
            "set it to 1",
        )?;
        require(
            self.arch == VlaArch::Expert || !self.freeze.state_proj,
            "freeze.state_proj",
            "the pooled architecture has no projection of states",
            "set it to false",
        )?;
        section("action", at_least("chunk_size", self.action.chunk_size, 1))?;
        section("action", at_least("dim", self.action.dim.unwrap_or(1), 1))?;
        section("action", at_least("max_dim", self.action.max_dim, 1))?;
        section("state", at_least("max_dim", self.state.max_dim, 1))?;
        section("prompt", at_least("max_length", self.prompt.max_length, 1))?;
        section("expert", self.expert.check(&self.backbone))?;
        section("flow", self.flow.check())?;
        section("laq", self.laq.check())?;
        require(
            self.laq.checkpoint.is_some() || !self.mode.with_latents(),
            "laq.checkpoint",
            "this mode learns latent actions, and no teacher is given",
            "give a run directory or checkpoint folder of `hlrp train-laq`, or set model.mode=actions",
        )
        .map_err(Problem::unset)
    }
}

impl VlaModelConfig {
    fn check_loss_weights(&self) -> Checked {
        not_negative("latent_loss_weight", self.latent_loss_weight)?;
        not_negative("action_loss_weight", self.action_loss_weight)?;
        let (key, sum) = match self.mode {
            VlaMode::Latent => ("latent_loss_weight", self.latent_loss_weight),
            VlaMode::Actions => ("action_loss_weight", self.action_loss_weight),
            VlaMode::Multitask => ("action_loss_weight", self.latent_loss_weight + self.action_loss_weight),
        };
        require(sum > 0.0, key, "nothing is left to learn in this model.mode", "set it above 0")
    }

    fn check_cameras(&self) -> Checked {
        let cameras = &self.cameras;
        require(!cameras.is_empty(), "cameras", "no camera", "name at least one role, such as [primary]")?;
        require(
            self.arch == VlaArch::Expert || cameras.len() == 1,
            "cameras",
            format!("{} cameras, the pooled architecture sees one", cameras.len()),
            "name one role",
        )?;
        let twice = cameras.iter().enumerate().find(|(index, role)| cameras[..*index].contains(role));
        if let Some((_, role)) = twice {
            return Err(Problem::new("cameras", format!("'{role}' is named twice"), "name each role once"));
        }
        require(
            cameras.iter().all(|role| !role.is_empty()),
            "cameras",
            "an empty role",
            "name roles of data.sources.<name>.cameras",
        )?;
        require(
            self.num_empty_cameras < cameras.len(),
            "num_empty_cameras",
            format!("{} of {} cameras leave none to see", self.num_empty_cameras, cameras.len()),
            "keep at least one camera",
        )
    }
}

impl BackboneConfig {
    /// Text layers in use; none where only the backbone's folder tells.
    fn num_layers(&self) -> Option<i64> {
        self.num_text_layers.or_else(|| self.sizes.as_ref().map(|sizes| sizes.text.num_hidden_layers))
    }
}

impl Check for BackboneConfig {
    fn check(&self) -> Checked {
        require(
            self.path.is_some() || self.sizes.is_some(),
            "path",
            "neither a folder nor sizes for random weights",
            "give the folder or Hugging Face name of a SmolVLM, or model.backbone.sizes",
        )?;
        if let Some(sizes) = &self.sizes {
            section("sizes", sizes.check())?;
        }
        let Some(num_layers) = self.num_text_layers else { return Ok(()) };
        at_least("num_text_layers", num_layers, 1)?;
        let available = self.sizes.as_ref().map_or(num_layers, |sizes| sizes.text.num_hidden_layers);
        require(
            num_layers <= available,
            "num_text_layers",
            format!("{num_layers} of {available} text layers cannot be kept"),
            format!("set it to {available} or less, or to null for all"),
        )
    }
}

impl Check for BackboneSizes {
    fn check(&self) -> Checked {
        section("vision", self.vision.check())?;
        section("text", self.text.check())?;
        at_least("scale_factor", self.scale_factor, 1)?;
        let vocab_size = self.text.vocab_size;
        require(
            (0..vocab_size).contains(&self.image_token_id),
            "image_token_id",
            format!("{} is no token of a vocabulary of {vocab_size}", self.image_token_id),
            format!("set it from 0 to {}", vocab_size - 1),
        )
    }
}

/// Sizes of a transformer, each with its key: all of them are 1 or more, and `part` divides `whole`.
fn check_transformer(counts: &[(&str, i64)], whole: (&str, i64), part: (&str, i64)) -> Checked {
    counts.iter().chain([&whole, &part]).try_for_each(|(key, count)| at_least(key, *count, 1))?;
    let [(whole, total), (key, count)] = [whole, part];
    let message = format!("{count} does not divide {whole} = {total}");
    require(total % count == 0, key, message, format!("take a divisor of {whole}"))
}

impl Check for VisionSizes {
    fn check(&self) -> Checked {
        let width = ("hidden_size", self.hidden_size);
        let heads = ("num_attention_heads", self.num_attention_heads);
        let counts = [
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("image_size", self.image_size),
            ("patch_size", self.patch_size),
        ];
        check_transformer(&counts, width, heads)?;
        positive("layer_norm_eps", self.layer_norm_eps)
    }
}

impl Check for TextSizes {
    fn check(&self) -> Checked {
        let heads = ("num_attention_heads", self.num_attention_heads);
        let shared = ("num_key_value_heads", self.num_key_value_heads);
        let counts = [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("head_dim", self.head_dim),
            ("vocab_size", self.vocab_size),
        ];
        check_transformer(&counts, heads, shared)?;
        positive("rms_norm_eps", self.rms_norm_eps)?;
        positive("rope_theta", self.rope_theta)?;
        let message = format!("{} is odd, and rotary positions turn pairs of numbers", self.head_dim);
        require(self.head_dim % 2 == 0, "head_dim", message, "set it to an even number")
    }
}

impl ExpertOptions {
    fn check(&self, backbone: &BackboneConfig) -> Checked {
        positive("width_multiplier", self.width_multiplier)?;
        at_least("self_attn_every_n_layers", self.self_attn_every_n_layers, 1)?;
        if let Some(length) = self.prefix_length {
            at_least("prefix_length", length, 1)?;
        }
        if let Some(sizes) = &backbone.sizes {
            let width = (sizes.text.hidden_size as f64 * self.width_multiplier) as i64;
            let message = format!("{} gives an expert of width {width}", self.width_multiplier);
            require(
                width >= 2 && width % 2 == 0,
                "width_multiplier",
                message,
                "the width must be even; 0.75 is usual",
            )?;
        }
        let Some(num_layers) = self.num_layers else { return Ok(()) };
        at_least("num_layers", num_layers, 1)?;
        let kept = backbone.num_layers().unwrap_or(num_layers);
        require(
            kept % num_layers == 0,
            "num_layers",
            format!("{num_layers} does not divide the {kept} text layers kept"),
            format!("take {kept} or a divisor of it, or null for as many"),
        )
    }
}

impl Check for TeacherOptions {
    fn check(&self) -> Checked {
        require(!self.camera.is_empty(), "camera", "an empty role", "name a role of data.sources.<name>.cameras")?;
        let confirmed =
            [("codebook_size", self.codebook_size), ("code_seq_len", self.code_seq_len), ("code_dim", self.code_dim)];
        confirmed.into_iter().try_for_each(|(key, value)| at_least(key, value.unwrap_or(1), 1))
    }
}

impl Check for FlowOptions {
    fn check(&self) -> Checked {
        at_least("num_steps", self.num_steps, 1)?;
        positive("min_period", self.min_period)?;
        require(
            self.min_period < self.max_period,
            "max_period",
            format!("{} does not exceed the shortest period {}", self.max_period, self.min_period),
            "0.004 and 4.0 are usual",
        )?;
        positive("time_beta_alpha", self.time_beta_alpha)?;
        positive("time_beta_beta", self.time_beta_beta)
    }
}
