//! `arch: expert`: a flow-matching expert next to the backbone, LeRobot's SmolVLA.

use super::Arch;
use crate::policy::{BackboneFacts, BackboneSizes, LatentShape, Mode, ModelSpec, UNRESOLVED};
use crate::rules::{Checked, at_least, fraction, positive, require, section};
use hlrp_config::Problem;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A multiple that the expert's feed-forward width is rounded up to.
const MLP_MULTIPLE: i64 = 256;
/// Special tokens around an image: two before it, one after.
const NUM_MARKERS: i64 = 3;

/// Section `arch.expert`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // each key is explained next to its default in config/policy/expert.yaml
pub struct ExpertSpec {
    pub smolvla_checkpoint: Option<PathBuf>,
    pub num_expert_layers: Option<i64>,
    pub expert_width_multiplier: f64,
    pub self_attn_every_n_layers: i64,
    pub prefix_length: Option<i64>,
    pub add_image_special_tokens: bool,
    pub image_special_tokens: Option<ImageSpecialTokens>,
    pub max_state_dim: i64,
    pub max_action_dim: i64,
    pub chunk_size: i64,
    pub train_state_proj: bool,
    pub latent_head: LatentHead,
    pub latent_dropout: f64,
}

/// How latent actions are predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LatentHead {
    /// Their vectors by a flow of their own.
    VectorFlow,
    /// Their vectors by regression.
    VectorMse,
    /// Their codes by classification, one softmax for each slot.
    CodeCrossEntropy,
    /// Their vectors by one flow with the actions, which see them; they do not see the actions.
    JointFlow,
}

impl LatentHead {
    /// Whether latents come from noise.
    pub fn is_flow(self) -> bool {
        matches!(self, Self::VectorFlow | Self::JointFlow)
    }
}

/// Ids of the tokens `<fake_token_around_image>` and `<global-img>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageSpecialTokens {
    /// Before and after an image.
    pub fake_id: i64,
    /// Follows the first of them.
    pub global_id: i64,
}

impl ExpertSpec {
    /// Layers of the expert next to a text model of `num_text_layers`.
    pub fn num_layers(&self, num_text_layers: i64) -> i64 {
        self.num_expert_layers.unwrap_or(num_text_layers)
    }

    /// Width of the expert's residual stream.
    pub fn dim(&self, backbone: &BackboneSizes) -> i64 {
        (backbone.text.hidden_size as f64 * self.expert_width_multiplier) as i64
    }

    /// Width of the expert's feed-forward layers: 8/3 of its own width, rounded up to a multiple of 256.
    pub fn mlp_dim(&self, backbone: &BackboneSizes) -> i64 {
        let two_thirds = 2 * 4 * self.dim(backbone) / 3;
        MLP_MULTIPLE * ((two_thirds + MLP_MULTIPLE - 1) / MLP_MULTIPLE)
    }

    /// The expert's layers fall on the backbone's, and both agree on where they attend jointly.
    fn check_layers(&self, num_text_layers: i64) -> Checked {
        let num_expert = self.num_layers(num_text_layers);
        require(
            num_text_layers % num_expert == 0,
            "num_expert_layers",
            format!("{num_expert} does not divide the backbone's {num_text_layers} text layers"),
            format!("use {num_text_layers} or a divisor of it, or null for as many"),
        )?;
        // An expert layer's shape follows from its own index, its use from the backbone's layer that it belongs to.
        let (every, spacing) = (self.self_attn_every_n_layers, num_text_layers / num_expert);
        let by_backbone: Vec<i64> = (0..num_text_layers).filter(|layer| layer % every == 0).collect();
        let by_expert: Vec<i64> =
            (0..num_expert).filter(|index| index % every == 0).map(|index| index * spacing).collect();
        require(
            by_backbone == by_expert,
            "self_attn_every_n_layers",
            format!(
                "with {num_expert} expert layers over {num_text_layers} text layers, joint attention falls on text \
                 layers {by_backbone:?} but on the expert layers at {by_expert:?}"
            ),
            format!("set num_expert_layers to null, or this to {num_text_layers}"),
        )
    }

    fn check_section(&self, model: &ModelSpec) -> Checked {
        let counts = [
            ("num_expert_layers", self.num_expert_layers.unwrap_or(1)),
            ("self_attn_every_n_layers", self.self_attn_every_n_layers),
            ("prefix_length", self.prefix_length.unwrap_or(1)),
            ("max_state_dim", self.max_state_dim),
            ("max_action_dim", self.max_action_dim),
            ("chunk_size", self.chunk_size),
        ];
        counts.into_iter().try_for_each(|(key, value)| at_least(key, value, 1))?;
        positive("expert_width_multiplier", self.expert_width_multiplier)?;
        fraction("latent_dropout", self.latent_dropout, true)?;
        if let Some(sizes) = &model.backbone.sizes {
            self.check_layers(model.backbone.num_vlm_layers.unwrap_or(sizes.text.num_hidden_layers))?;
            let width = self.dim(sizes);
            let message = format!("{} gives an expert of width {width}", self.expert_width_multiplier);
            let hint = "the width must be even; 0.75 is usual";
            require(width >= 2 && width % 2 == 0, "expert_width_multiplier", message, hint)?;
        }
        require(
            self.add_image_special_tokens || self.image_special_tokens.is_none(),
            "image_special_tokens",
            "ids are given, but add_image_special_tokens is false",
            "set add_image_special_tokens to true, or this to null",
        )
    }
}

impl Arch for ExpertSpec {
    fn check(&self, model: &ModelSpec) -> Checked {
        section("arch", section("expert", self.check_section(model)))
    }

    fn check_resolved(&self, model: &ModelSpec) -> Checked {
        require(model.action_dim.is_some(), "action_dim", "null", UNRESOLVED)?;
        require(
            self.image_special_tokens.is_some() == self.add_image_special_tokens,
            "arch.expert.image_special_tokens",
            "null, but add_image_special_tokens is true",
            UNRESOLVED,
        )?;
        require(
            self.latent_head != LatentHead::CodeCrossEntropy
                || model.latent.is_none_or(|latent| latent.codebook_size.is_some()),
            "arch.expert.latent_head",
            "code_cross_entropy, but the latents have no codes",
            "choose vector_flow, vector_mse or joint_flow, or a teacher with codes",
        )
    }

    fn chunk_size(&self) -> i64 {
        self.chunk_size
    }

    fn max_state_dim(&self) -> Option<i64> {
        Some(self.max_state_dim)
    }

    fn max_action_dim(&self) -> Option<i64> {
        Some(self.max_action_dim)
    }

    fn prefix_length(&self) -> Option<(&'static str, i64)> {
        self.prefix_length.map(|length| ("prefix_length", length))
    }

    fn smolvla_checkpoint(&self) -> Option<(&'static str, &Path)> {
        self.smolvla_checkpoint.as_deref().map(|path| ("arch.expert.smolvla_checkpoint", path))
    }

    fn num_tokens_around_image(&self) -> i64 {
        if self.add_image_special_tokens { NUM_MARKERS } else { 0 }
    }

    fn heads(
        &self,
        _mode: Mode,
        action_dim: Option<i64>,
        latent: Option<LatentShape>,
    ) -> (Option<i64>, Option<LatentShape>) {
        // The action head exists in every mode; without actions one dimension of it counts.
        (Some(action_dim.unwrap_or(1)), latent)
    }

    fn resolve(&mut self, sizes: &BackboneSizes, backbone: &BackboneFacts) -> Checked {
        self.smolvla_checkpoint = None;
        self.num_expert_layers.get_or_insert(sizes.text.num_hidden_layers);
        if self.add_image_special_tokens && self.image_special_tokens.is_none() {
            self.image_special_tokens = Some(backbone.image_special_tokens.ok_or_else(|| {
                Problem::new(
                    "arch.expert.add_image_special_tokens",
                    "the tokenizer has no `<fake_token_around_image>` or no `<global-img>`",
                    "set it to false, or use a backbone whose tokenizer has both",
                )
            })?);
        }
        Ok(())
    }
}
