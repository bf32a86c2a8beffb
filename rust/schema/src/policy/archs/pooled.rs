//! `arch: pooled`: small heads on the backbone's averaged features.

use super::Arch;
use crate::policy::{BackboneFacts, BackboneSizes, LatentShape, Mode, ModelSpec, UNRESOLVED};
use crate::rules::{Checked, require};
use serde::{Deserialize, Serialize};

/// Section `arch.pooled`: it has no keys of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PooledSpec {}

impl Arch for PooledSpec {
    fn check(&self, model: &ModelSpec) -> Checked {
        let num_cameras = model.cameras.len();
        let message = format!("{num_cameras} cameras, the pooled architecture sees one");
        require(num_cameras == 1, "cameras", message, "name one role")?;
        let width = model.backbone.sizes.as_ref().map_or(2, |sizes| sizes.text.hidden_size);
        let message = format!("the backbone's width {width} is odd, time embeddings need an even one");
        require(width % 2 == 0, "backbone", message, "use a backbone of even width")
    }

    fn check_resolved(&self, model: &ModelSpec) -> Checked {
        require(model.latent.is_some(), "latent", "null", UNRESOLVED)
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
        // Without a teacher the latent head is the smallest there is, and frozen.
        let smallest = LatentShape { code_seq_len: 1, code_dim: 1, codebook_size: None };
        (action_dim.filter(|_| mode.with_actions()), Some(latent.unwrap_or(smallest)))
    }

    fn resolve(&mut self, _sizes: &BackboneSizes, _backbone: &BackboneFacts) -> Checked {
        Ok(())
    }
}
