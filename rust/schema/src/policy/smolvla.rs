//! LeRobot's `smolvla` policy as a description.

use super::{
    ArchSpec, BackboneSpec, ExpertSpec, FlowSpec, ImagePreparation, LatentHead, LatentShape, ModelSpec, Padding,
    ProcessorSpec, Side,
};
use serde::Deserialize;

/// The fields of LeRobot's `smolvla` that describe the policy, under its names and in its terms, and what it lacks: the system prompt and the latent
/// head.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // LeRobot's own
pub struct SmolVlaFields {
    pub load_vlm_weights: bool,
    pub num_vlm_layers: i64,
    pub train_expert_only: bool,
    pub freeze_vision_encoder: bool,
    pub train_state_proj: bool,
    pub empty_cameras: usize,
    pub resize_imgs_with_padding: [i64; 2],
    pub add_image_special_tokens: bool,
    /// Not padded where it is 0 or less.
    pub prefix_length: i64,
    /// As many as text layers where it is 0 or less.
    pub num_expert_layers: i64,
    pub expert_width_multiplier: f64,
    pub self_attn_every_n_layers: i64,
    pub max_state_dim: i64,
    pub max_action_dim: i64,
    pub chunk_size: i64,
    pub num_steps: i64,
    pub min_period: f64,
    pub max_period: f64,
    pub tokenizer_max_length: usize,
    pub pad_language_to: Padding,
    pub system_prompt: String,
    pub latent_head: LatentHead,
    pub latent_dropout: f64,
}

impl SmolVlaFields {
    /// The model and the preparation of its inputs; what they leave to the backbone is null. The distribution of training times is fixed in
    /// LeRobot.
    pub fn describe(
        self,
        cameras: Vec<String>,
        action_dim: i64,
        latent: Option<LatentShape>,
    ) -> (ModelSpec, ProcessorSpec) {
        let positive = |value: i64| (value > 0).then_some(value);
        let expert = ExpertSpec {
            smolvla_checkpoint: None,
            num_expert_layers: positive(self.num_expert_layers),
            expert_width_multiplier: self.expert_width_multiplier,
            self_attn_every_n_layers: self.self_attn_every_n_layers,
            prefix_length: positive(self.prefix_length),
            add_image_special_tokens: self.add_image_special_tokens,
            image_special_tokens: None,
            max_state_dim: self.max_state_dim,
            max_action_dim: self.max_action_dim,
            chunk_size: self.chunk_size,
            train_state_proj: self.train_state_proj,
            latent_head: self.latent_head,
            latent_dropout: self.latent_dropout,
        };
        let model = ModelSpec {
            backbone: BackboneSpec {
                vlm_model_name: None,
                hub_cache: None,
                load_vlm_weights: self.load_vlm_weights,
                num_vlm_layers: Some(self.num_vlm_layers),
                train_expert_only: self.train_expert_only,
                freeze_vision_encoder: self.freeze_vision_encoder,
                sizes: None,
            },
            cameras,
            empty_cameras: self.empty_cameras,
            resize_imgs_with_padding: self.resize_imgs_with_padding,
            action_dim: Some(action_dim),
            latent,
            flow: FlowSpec {
                num_steps: self.num_steps,
                min_period: self.min_period,
                max_period: self.max_period,
                time_beta_alpha: 1.5,
                time_beta_beta: 1.0,
            },
            arch: ArchSpec::Expert(expert),
        };
        let processor = ProcessorSpec {
            image_preparation: ImagePreparation::PadResizeBilinearLeftTop,
            frame_size: None,
            tokenizer: None,
            tokenizer_max_length: self.tokenizer_max_length,
            pad_language_to: self.pad_language_to,
            padding_side: Side::Right,
            truncation_side: Side::Left,
            system_prompt: self.system_prompt,
            newline: true,
            state: None,
            action: None,
        };
        (model, processor)
    }
}
