//! `arch: tokens_mlp`: a perceptron on averaged image tokens and instruction embeddings; the text decoder is not used.

use super::Arch;
use crate::policy::{BackboneFacts, BackboneSizes, LatentShape, Mode, ModelSpec};
use crate::rules::{Checked, at_least, require, section};
use serde::{Deserialize, Serialize};

/// Section `arch.tokens_mlp`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokensMlpSpec {
    /// Width of the hidden layer.
    pub hidden_dim: i64,
}

impl Arch for TokensMlpSpec {
    fn check(&self, model: &ModelSpec) -> Checked {
        let num_cameras = model.cameras.len();
        let message = format!("{num_cameras} cameras, the tokens_mlp architecture sees one");
        require(num_cameras == 1, "cameras", message, "name one role")?;
        section("arch", section("tokens_mlp", at_least("hidden_dim", self.hidden_dim, 1)))
    }

    /// A head exists where there is something to learn for it.
    fn check_resolved(&self, _model: &ModelSpec) -> Checked {
        Ok(())
    }

    fn chunk_size(&self) -> i64 {
        1
    }

    fn max_state_dim(&self) -> Option<i64> {
        None
    }

    fn max_action_dim(&self) -> Option<i64> {
        None
    }

    fn heads(
        &self,
        mode: Mode,
        action_dim: Option<i64>,
        latent: Option<LatentShape>,
    ) -> (Option<i64>, Option<LatentShape>) {
        (action_dim.filter(|_| mode.with_actions()), latent.filter(|_| mode.with_latents()))
    }

    fn resolve(&mut self, _sizes: &BackboneSizes, _backbone: &BackboneFacts) -> Checked {
        Ok(())
    }
}
