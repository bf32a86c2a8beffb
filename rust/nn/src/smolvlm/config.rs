//! Sizes of a SmolVLM.

use super::hf_config;
use crate::NnError;
use crate::llama::TextConfig;
use crate::siglip::VisionConfig;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Sizes of a backbone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmolVlmConfig {
    /// The vision tower.
    pub vision: VisionConfig,
    /// The text decoder.
    pub text: TextConfig,
    /// Side of the block of vision tokens that becomes one image token.
    pub scale_factor: i64,
    /// Id of the placeholder that image tokens replace in a chat prompt.
    pub image_token_id: i64,
    /// Whether the language-model head is the embedding table.
    pub tie_word_embeddings: bool,
}

impl SmolVlmConfig {
    /// The sizes in the `config.json` of a model folder; needs no weights.
    ///
    /// # Errors
    /// A missing file, invalid JSON, a model of another kind, a missing or contradictory size.
    pub fn from_folder(folder: &Path) -> Result<Self, NnError> {
        hf_config::read(&folder.join(hf_config::FILE))
    }

    /// The same backbone with only its first `num_layers` text layers.
    ///
    /// # Errors
    /// Fewer than one layer, or more than there are.
    pub fn with_text_layers(mut self, num_layers: i64) -> Result<Self, NnError> {
        let available = self.text.num_hidden_layers;
        if !(1..=available).contains(&num_layers) {
            return Err(NnError::sizes(
                format!("{num_layers} text layers asked for, the backbone has {available}"),
                format!("keep 1 to {available} layers"),
            ));
        }
        self.text.num_hidden_layers = num_layers;
        Ok(self)
    }

    /// Image tokens of an image of this size in pixels.
    ///
    /// # Errors
    /// Sides that are not multiples of patch × scale factor.
    pub fn num_image_tokens(&self, height: i64, width: i64) -> Result<i64, NnError> {
        let block = self.vision.patch_size * self.scale_factor;
        if height < block || width < block || height % block != 0 || width % block != 0 {
            return Err(NnError::sizes(
                format!("an image of {height}x{width} pixels does not divide into blocks of {block}x{block}"),
                format!("use an image size whose sides are multiples of {block}"),
            ));
        }
        Ok((height / block) * (width / block))
    }

    /// Checks that the sizes are valid together.
    ///
    /// # Errors
    /// Names the first size that contradicts the others.
    pub fn validate(&self) -> Result<(), NnError> {
        let (vision, text) = (&self.vision, &self.text);
        let sizes = [
            ("vision.hidden_size", vision.hidden_size),
            ("vision.intermediate_size", vision.intermediate_size),
            ("vision.num_hidden_layers", vision.num_hidden_layers),
            ("vision.num_attention_heads", vision.num_attention_heads),
            ("vision.image_size", vision.image_size),
            ("vision.patch_size", vision.patch_size),
            ("text.hidden_size", text.hidden_size),
            ("text.intermediate_size", text.intermediate_size),
            ("text.num_hidden_layers", text.num_hidden_layers),
            ("text.num_attention_heads", text.num_attention_heads),
            ("text.num_key_value_heads", text.num_key_value_heads),
            ("text.head_dim", text.head_dim),
            ("text.vocab_size", text.vocab_size),
            ("scale_factor", self.scale_factor),
        ];
        if let Some((name, size)) = sizes.into_iter().find(|(_, size)| *size < 1) {
            return Err(NnError::sizes(format!("{name} is {size}"), "use a positive size"));
        }
        for (name, value) in [
            ("vision.layer_norm_eps", vision.layer_norm_eps),
            ("text.rms_norm_eps", text.rms_norm_eps),
            ("text.rope_theta", text.rope_theta),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(NnError::sizes(format!("{name} is {value}"), "use a positive number"));
            }
        }
        for (name, size, divisor_name, divisor) in [
            ("vision.hidden_size", vision.hidden_size, "vision.num_attention_heads", vision.num_attention_heads),
            ("vision.image_size", vision.image_size, "vision.patch_size", vision.patch_size),
            (
                "text.num_attention_heads",
                text.num_attention_heads,
                "text.num_key_value_heads",
                text.num_key_value_heads,
            ),
            ("text.head_dim", text.head_dim, "2 (rotary positions rotate pairs)", 2),
        ] {
            if size % divisor != 0 {
                let problem = format!("{name} {size} is not a multiple of {divisor_name} {divisor}");
                return Err(NnError::sizes(problem, "change one of the two"));
            }
        }
        Ok(())
    }
}
