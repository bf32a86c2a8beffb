//! Sizes of the pooled architecture.

use crate::model::check_backbone;
use crate::{FlowConfig, LatentConfig, VlaError};
use hlrp_nn::smolvlm::SmolVlmConfig;
use serde::{Deserialize, Serialize};

/// Everything that fixes the shape and the mathematics of a [`super::PooledModel`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PooledConfig {
    /// The backbone.
    pub backbone: SmolVlmConfig,
    /// Role of the one camera.
    pub camera: String,
    /// Height and width of prepared images.
    pub image_size: [i64; 2],
    /// The latent head.
    pub latent: LatentConfig,
    /// Numbers of the action that a linear head regresses; no head when null.
    pub action_dim: Option<i64>,
    /// The flow.
    pub flow: FlowConfig,
}

impl PooledConfig {
    /// Checks everything that can be checked without weights.
    ///
    /// # Errors
    /// A value that makes no model; the text names its key.
    pub fn check(&self) -> Result<(), VlaError> {
        self.flow.check()?;
        check_backbone(&self.backbone, self.image_size)?;
        let width = self.backbone.text.hidden_size;
        if width % 2 != 0 {
            let problem = format!("the width {width} is odd, time embeddings need an even one");
            return Err(VlaError::config("backbone", problem, "take a backbone of even width"));
        }
        let sizes = [
            ("latent.code_seq_len", self.latent.code_seq_len),
            ("latent.code_dim", self.latent.code_dim),
            ("action_dim", self.action_dim.unwrap_or(1)),
        ];
        match sizes.into_iter().find(|(_, value)| *value < 1) {
            Some((key, value)) => {
                Err(VlaError::config(key, format!("{value} is not a positive number"), "set it to at least 1"))
            }
            None => Ok(()),
        }
    }
}
