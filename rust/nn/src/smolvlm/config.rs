//! Sizes of a backbone.

use super::{SmolVlmError, hf_config};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Sizes of the vision tower. Field names are those of transformers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisionConfig {
    /// Token width.
    pub hidden_size: i64,
    /// Width inside the feed-forward block.
    pub intermediate_size: i64,
    /// Blocks.
    pub num_hidden_layers: i64,
    /// Attention heads.
    pub num_attention_heads: i64,
    /// Side in pixels of the square picture that the position table was made for.
    pub image_size: i64,
    /// Side of a patch in pixels.
    pub patch_size: i64,
    /// ε of the layer norms.
    pub layer_norm_eps: f64,
}

/// Sizes of the text decoder. Field names are those of transformers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextConfig {
    /// Token width.
    pub hidden_size: i64,
    /// Width inside the feed-forward block.
    pub intermediate_size: i64,
    /// Layers.
    pub num_hidden_layers: i64,
    /// Query heads.
    pub num_attention_heads: i64,
    /// Key/value heads; each serves the same number of query heads.
    pub num_key_value_heads: i64,
    /// Width of a head.
    pub head_dim: i64,
    /// ε of the RMS norms.
    pub rms_norm_eps: f64,
    /// Longest wavelength of the rotary positions, in units of 2π positions.
    pub rope_theta: f64,
    /// Rows of the embedding table.
    pub vocab_size: i64,
}

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
    /// The sizes that the `config.json` of a model folder states. Weights need not be there.
    ///
    /// # Errors
    /// A file that is absent or no JSON, a model of another kind, a missing or contradictory size.
    pub fn from_folder(folder: &Path) -> Result<Self, SmolVlmError> {
        hf_config::read(&folder.join(hf_config::FILE))
    }

    /// The same backbone with only its first `num_layers` text layers.
    ///
    /// # Errors
    /// Fewer than one layer, or more than there are.
    pub fn with_text_layers(mut self, num_layers: i64) -> Result<Self, SmolVlmError> {
        let available = self.text.num_hidden_layers;
        if !(1..=available).contains(&num_layers) {
            return Err(SmolVlmError::Sizes {
                problem: format!("{num_layers} text layers asked for, the backbone has {available}"),
                hint: format!("keep 1 to {available} layers"),
            });
        }
        self.text.num_hidden_layers = num_layers;
        Ok(self)
    }

    /// Image tokens that a picture of this size in pixels becomes.
    ///
    /// # Errors
    /// Sides that are not multiples of patch × scale factor.
    pub fn num_image_tokens(&self, height: i64, width: i64) -> Result<i64, SmolVlmError> {
        let block = self.vision.patch_size * self.scale_factor;
        if height < block || width < block || height % block != 0 || width % block != 0 {
            return Err(SmolVlmError::Sizes {
                problem: format!("a picture of {height}x{width} pixels does not divide into blocks of {block}x{block}"),
                hint: format!("use an image size whose sides are multiples of {block}"),
            });
        }
        Ok((height / block) * (width / block))
    }

    /// Checks that the sizes make a model.
    ///
    /// # Errors
    /// Names the first size that contradicts the others.
    pub fn validate(&self) -> Result<(), SmolVlmError> {
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
            return Err(contradiction(format!("{name} is {size}"), "sizes are positive"));
        }
        for (name, value) in [
            ("vision.layer_norm_eps", vision.layer_norm_eps),
            ("text.rms_norm_eps", text.rms_norm_eps),
            ("text.rope_theta", text.rope_theta),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(contradiction(format!("{name} is {value}"), "it must be a positive number"));
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
            ("text.head_dim", text.head_dim, "2 (rotary positions turn pairs)", 2),
        ] {
            if size % divisor != 0 {
                let problem = format!("{name} {size} is not a multiple of {divisor_name} {divisor}");
                return Err(contradiction(problem, "change one of the two"));
            }
        }
        Ok(())
    }
}

fn contradiction(problem: String, hint: &str) -> SmolVlmError {
    SmolVlmError::Sizes { problem, hint: hint.to_owned() }
}
