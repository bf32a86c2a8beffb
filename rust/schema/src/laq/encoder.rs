//! Section `model.encoder`: how frames become tokens.

use crate::rules::{Checked, at_least, positive, require, section};
use hlrp_config::{Check, Problem, ProblemKind};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Section `model.encoder`: the section of the encoder in use; none of them = pixel patches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderConfig {
    /// Convolutions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conv: Option<ConvEncoderConfig>,
    /// A frozen DINOv3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dinov3: Option<Dinov3Config>,
}

/// The one encoder that a configuration has.
#[derive(Debug, Clone, Copy)]
pub enum EncoderMethod<'a> {
    /// Pixel patches.
    Pixel,
    /// Convolutions.
    Conv(&'a ConvEncoderConfig),
    /// A frozen DINOv3.
    Dinov3(&'a Dinov3Config),
}

/// Section `model.encoder.conv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvEncoderConfig {
    /// Channels of the first layer; each further one has twice as many, up to `model.dim`.
    pub width: i64,
}

/// Section `model.encoder.dinov3`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dinov3Config {
    /// Folder or Hugging Face name of the model; none = fresh weights of `sizes`, or those of a checkpoint.
    pub model: Option<String>,
    /// Where Hugging Face keeps models.
    pub hub_cache: Option<PathBuf>,
    /// Its sizes; none = those of `model`.
    pub sizes: Option<Dinov3Sizes>,
}

/// Sizes of a DINOv3 ViT, under the names of transformers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // the keys of transformers' DINOv3ViTConfig
pub struct Dinov3Sizes {
    pub hidden_size: i64,
    pub intermediate_size: i64,
    pub num_hidden_layers: i64,
    pub num_attention_heads: i64,
    pub patch_size: i64,
    pub num_register_tokens: i64,
    pub layer_norm_eps: f64,
    pub rope_theta: f64,
    pub hidden_act: Dinov3Activation,
    pub use_gated_mlp: bool,
    pub key_bias: bool,
    pub mlp_bias: bool,
}

/// The activation of a feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dinov3Activation {
    /// The exact GELU.
    Gelu,
    /// SiLU.
    Silu,
}

impl EncoderConfig {
    /// The encoder in use.
    ///
    /// # Errors
    /// Several have a section.
    pub fn method(&self) -> Result<EncoderMethod<'_>, Problem> {
        match (&self.conv, &self.dinov3) {
            (None, None) => Ok(EncoderMethod::Pixel),
            (Some(conv), None) => Ok(EncoderMethod::Conv(conv)),
            (None, Some(dinov3)) => Ok(EncoderMethod::Dinov3(dinov3)),
            (Some(_), Some(_)) => Err(Problem::of(ProblemKind::Value, "several encoders are chosen: conv, dinov3")
                .hint("choose one with model/encoder=NAME: conv, dinov3")),
        }
    }
}

impl Check for ConvEncoderConfig {
    fn check(&self) -> Checked {
        at_least("width", self.width, 1)
    }
}

impl Check for Dinov3Config {
    fn check(&self) -> Checked {
        require(
            self.model.is_some() || self.sizes.is_some(),
            "model",
            "neither a model nor sizes",
            "give the folder or Hugging Face name of a DINOv3 ViT, or set sizes for fresh weights",
        )?;
        self.sizes.as_ref().map_or(Ok(()), |sizes| section("sizes", sizes.check()))
    }
}

impl Check for Dinov3Sizes {
    fn check(&self) -> Checked {
        let counts = [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("patch_size", self.patch_size),
        ];
        counts.into_iter().try_for_each(|(key, value)| at_least(key, value, 1))?;
        at_least("num_register_tokens", self.num_register_tokens, 0)?;
        positive("layer_norm_eps", self.layer_norm_eps)?;
        positive("rope_theta", self.rope_theta)?;
        require(
            self.hidden_size % (4 * self.num_attention_heads) == 0,
            "num_attention_heads",
            format!("{} heads do not share {} dimensions in fours", self.num_attention_heads, self.hidden_size),
            "a head needs a multiple of 4 dimensions: sines and cosines of rows and columns",
        )
    }
}
