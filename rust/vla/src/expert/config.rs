//! Sizes of the expert architecture.

use crate::model::check_backbone;
use crate::{FlowConfig, VlaError};
use hlrp_nn::smolvlm::SmolVlmConfig;
use serde::{Deserialize, Serialize};

/// A multiple that the expert's feed-forward width is rounded up to.
const MLP_MULTIPLE: i64 = 256;

/// Everything that fixes the shape and the mathematics of an [`super::ExpertModel`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpertConfig {
    /// The backbone, with as many text layers as are kept.
    pub backbone: SmolVlmConfig,
    /// Camera roles in the order of the prefix.
    pub cameras: Vec<String>,
    /// How many of them an observation may lack; a lacking camera becomes tokens that nobody sees.
    pub num_empty_cameras: usize,
    /// Height and width of prepared images.
    pub image_size: [i64; 2],
    /// Tokens around each image; none when null.
    pub image_special_tokens: Option<ImageSpecialTokens>,
    /// Length that the prefix is padded to; not padded when null.
    pub prefix_length: Option<i64>,
    /// Layers of the expert; divides the backbone's number of text layers.
    pub num_expert_layers: i64,
    /// Width of the expert over the width of the backbone's text model.
    pub expert_width_multiplier: f64,
    /// Every how many layers expert and backbone attend jointly; the other layers of the expert look at the backbone's keys and values.
    pub self_attn_every_n_layers: i64,
    /// Width that states are padded to.
    pub max_state_dim: i64,
    /// The action head.
    pub action: ActionConfig,
    /// The latent head; none when null.
    pub latent: Option<LatentConfig>,
    /// The flow.
    pub flow: FlowConfig,
}

/// Ids of the tokens `<fake_token_around_image>` and `<global-img>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageSpecialTokens {
    /// Stands before and after an image.
    pub fake_id: i64,
    /// Follows the first of them.
    pub global_id: i64,
}

/// Sizes of real actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionConfig {
    /// Steps of a chunk.
    pub chunk_size: i64,
    /// Numbers of one action.
    pub action_dim: i64,
    /// Width that actions are padded to.
    pub max_action_dim: i64,
}

/// Sizes of latent actions, given by the teacher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatentConfig {
    /// Code slots S.
    pub code_seq_len: i64,
    /// Numbers of one code vector.
    pub code_dim: i64,
}

/// What the expert does at one layer of the backbone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExpertRole {
    /// Attends with the backbone over one sequence; the expert layer's index.
    Joint(usize),
    /// Looks at the backbone's keys and values; the expert layer's index.
    Cross(usize),
    /// Has no layer here.
    Absent,
}

impl ExpertConfig {
    /// Text layers of the backbone.
    pub fn num_backbone_layers(&self) -> i64 {
        self.backbone.text.num_hidden_layers
    }

    /// Width of the expert's residual stream.
    pub fn expert_dim(&self) -> i64 {
        (self.backbone.text.hidden_size as f64 * self.expert_width_multiplier) as i64
    }

    /// Width of the expert's feed-forward layers: 8/3 of its own width, rounded up to a multiple of 256.
    pub fn expert_mlp_dim(&self) -> i64 {
        let two_thirds = 2 * 4 * self.expert_dim() / 3;
        MLP_MULTIPLE * ((two_thirds + MLP_MULTIPLE - 1) / MLP_MULTIPLE)
    }

    /// What the expert does at each layer of the backbone.
    pub(crate) fn roles(&self) -> Vec<ExpertRole> {
        let spacing = self.num_backbone_layers() / self.num_expert_layers;
        (0..self.num_backbone_layers())
            .map(|layer| match (layer % spacing, layer % self.self_attn_every_n_layers, (layer / spacing) as usize) {
                (0, 0, index) => ExpertRole::Joint(index),
                (0, _, index) => ExpertRole::Cross(index),
                _ => ExpertRole::Absent,
            })
            .collect()
    }

    /// Checks everything that can be checked without weights.
    ///
    /// # Errors
    /// A value that makes no model; the text names its key.
    pub fn check(&self) -> Result<(), VlaError> {
        self.flow.check()?;
        check_backbone(&self.backbone, self.image_size)?;
        self.check_layers()?;
        self.check_inputs()?;
        let at_least_one = |key, value: i64| {
            let refuse = || VlaError::config(key, format!("{value} is not a positive number"), "set it to at least 1");
            (value >= 1).then_some(()).ok_or_else(refuse)
        };
        at_least_one("max_state_dim", self.max_state_dim)?;
        at_least_one("action.chunk_size", self.action.chunk_size)?;
        at_least_one("action.action_dim", self.action.action_dim)?;
        if let Some(latent) = self.latent {
            at_least_one("latent.code_seq_len", latent.code_seq_len)?;
            at_least_one("latent.code_dim", latent.code_dim)?;
        }
        if self.action.action_dim > self.action.max_action_dim {
            let problem =
                format!("{} numbers exceed max_action_dim = {}", self.action.action_dim, self.action.max_action_dim);
            return Err(VlaError::config("action.action_dim", problem, "raise model.action.max_dim"));
        }
        Ok(())
    }

    fn check_layers(&self) -> Result<(), VlaError> {
        let (num_layers, num_expert) = (self.num_backbone_layers(), self.num_expert_layers);
        if num_expert < 1 || num_layers % num_expert != 0 {
            let problem = format!("{num_expert} does not divide the backbone's {num_layers} text layers");
            return Err(VlaError::config(
                "num_expert_layers",
                problem,
                format!("take {num_layers} or a divisor of it"),
            ));
        }
        let every = self.self_attn_every_n_layers;
        if every < 1 {
            return Err(VlaError::config("self_attn_every_n_layers", format!("{every} is below 1"), "2 is usual"));
        }
        // An expert layer's shape follows from its own index, its use from the backbone's layer that it sits at.
        let spacing = num_layers / num_expert;
        let by_backbone: Vec<i64> = (0..num_layers).filter(|layer| layer % every == 0).collect();
        let by_expert: Vec<i64> =
            (0..num_expert).filter(|index| index % every == 0).map(|index| index * spacing).collect();
        if by_backbone != by_expert {
            let problem = format!(
                "with {num_expert} expert layers over {num_layers} text layers, joint attention falls on text layers \
                 {by_backbone:?} but on the expert layers at {by_expert:?}"
            );
            let hint = format!(
                "take {num_expert} a multiple of this value's reach, for instance self_attn_every_n_layers = {num_layers}"
            );
            return Err(VlaError::config("self_attn_every_n_layers", problem, hint));
        }
        let width = self.expert_dim();
        if width < 2 || width % 2 != 0 {
            let problem = format!("{} gives an expert of width {width}", self.expert_width_multiplier);
            return Err(VlaError::config("expert_width_multiplier", problem, "the width must be even, 0.75 is usual"));
        }
        Ok(())
    }

    fn check_inputs(&self) -> Result<(), VlaError> {
        if self.cameras.is_empty() {
            return Err(VlaError::config("cameras", "no camera is named", "name at least one camera role"));
        }
        if let Some(twice) = self.cameras.iter().enumerate().find(|(index, name)| self.cameras[..*index].contains(name))
        {
            return Err(VlaError::config("cameras", format!("`{}` is named twice", twice.1), "name each role once"));
        }
        if self.num_empty_cameras >= self.cameras.len() {
            let problem = format!("{} of {} cameras may be empty", self.num_empty_cameras, self.cameras.len());
            return Err(VlaError::config("num_empty_cameras", problem, "keep at least one camera"));
        }
        Ok(())
    }
}
