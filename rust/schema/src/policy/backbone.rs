//! The vision-language backbone: where it comes from and its sizes, under transformers' names.

use super::UNRESOLVED;
use crate::rules::{Checked, at_least, positive, require, section};
use hlrp_config::{Check, Problem};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Section `backbone`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // each key is explained next to its default in config/policy/
pub struct BackboneSpec {
    pub vlm_model_name: Option<String>,
    pub hub_cache: Option<PathBuf>,
    pub load_vlm_weights: bool,
    pub num_vlm_layers: Option<i64>,
    pub train_expert_only: bool,
    pub freeze_vision_encoder: bool,
    pub sizes: Option<BackboneSizes>,
}

/// Sizes of a backbone: of its description and of its network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackboneSizes {
    /// The vision tower.
    pub vision: VisionSizes,
    /// The text decoder.
    pub text: TextSizes,
    /// Side of the block of vision tokens that becomes one image token.
    pub scale_factor: i64,
    /// Id of the placeholder that image tokens replace in a chat prompt.
    pub image_token_id: i64,
    /// Whether the language-model head is the embedding table.
    pub tie_word_embeddings: bool,
}

/// Sizes of the vision tower.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisionSizes {
    /// Token width.
    pub hidden_size: i64,
    /// Width inside the feed-forward block.
    pub intermediate_size: i64,
    /// Blocks.
    pub num_hidden_layers: i64,
    /// Attention heads.
    pub num_attention_heads: i64,
    /// Side in pixels of the square image that the position table was made for.
    pub image_size: i64,
    /// Side of a patch in pixels.
    pub patch_size: i64,
    /// ε of the layer norms.
    pub layer_norm_eps: f64,
}

/// Sizes of the text decoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextSizes {
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

impl BackboneSpec {
    /// The sizes, in a description that is resolved.
    ///
    /// # Errors
    /// They are null; the key is relative to the model.
    pub fn sizes(&self) -> Result<&BackboneSizes, Problem> {
        self.sizes.as_ref().ok_or_else(|| Problem::new("backbone.sizes", "null", UNRESOLVED))
    }

    /// Takes over the sizes of the backbone's folder, keeps as many text layers as are asked for, and drops the paths.
    ///
    /// # Errors
    /// Sizes that differ from the folder's, none at all, or more text layers than there are.
    pub fn resolve(&mut self, folder: Option<&BackboneSizes>) -> Checked {
        if let Some(folder) = folder {
            require(
                self.sizes.as_ref().is_none_or(|sizes| sizes == folder),
                "sizes",
                "the backbone in its folder has other sizes",
                "set it to null to take the folder's",
            )?;
            section("sizes", folder.check())?;
            self.sizes = Some(folder.clone());
        }
        (self.vlm_model_name, self.hub_cache) = (None, None);
        self.check()?;
        let Some(sizes) = &mut self.sizes else {
            return Err(Problem::new("sizes", "null, and there is no folder", "set vlm_model_name, or give the sizes"));
        };
        let num_layers = self.num_vlm_layers.unwrap_or(sizes.text.num_hidden_layers);
        (sizes.text.num_hidden_layers, self.num_vlm_layers) = (num_layers, Some(num_layers));
        Ok(())
    }
}

impl Check for BackboneSpec {
    fn check(&self) -> Checked {
        if let Some(sizes) = &self.sizes {
            section("sizes", sizes.check())?;
        }
        let Some(num_layers) = self.num_vlm_layers else { return Ok(()) };
        at_least("num_vlm_layers", num_layers, 1)?;
        let available = self.sizes.as_ref().map_or(num_layers, |sizes| sizes.text.num_hidden_layers);
        require(
            num_layers <= available,
            "num_vlm_layers",
            format!("{num_layers} layers, but the text model has {available}"),
            format!("set it to {available} or less, or to null for all"),
        )
    }
}

impl BackboneSizes {
    /// Tokens of an image of this size in pixels.
    ///
    /// # Errors
    /// Sides that are not multiples of patch size × scale factor; the key is relative to the model.
    pub fn num_image_tokens(&self, height: i64, width: i64) -> Result<i64, Problem> {
        let block = self.vision.patch_size * self.scale_factor;
        require(
            height >= block && width >= block && height % block == 0 && width % block == 0,
            "resize_imgs_with_padding",
            format!("an image of {width}x{height} pixels does not divide into blocks of {block}x{block}"),
            format!("use sides that are multiples of {block}"),
        )?;
        Ok((height / block) * (width / block))
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
            format!("{} is not a token of a vocabulary of {vocab_size}", self.image_token_id),
            format!("set it from 0 to {}", vocab_size - 1),
        )
    }
}

/// Each of `sizes` is 1 or more.
fn check_positive(sizes: &[(&str, i64)]) -> Checked {
    sizes.iter().try_for_each(|(key, size)| at_least(key, *size, 1))
}

/// `part` divides `whole`; both are 1 or more.
fn check_divides(whole: (&str, i64), part: (&str, i64)) -> Checked {
    check_positive(&[whole, part])?;
    let ([whole, key], [total, count]) = ([whole.0, part.0], [whole.1, part.1]);
    let message = format!("{count} does not divide {whole} = {total}");
    require(total % count == 0, key, message, format!("use a divisor of {whole}"))
}

impl Check for VisionSizes {
    fn check(&self) -> Checked {
        check_positive(&[
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
        ])?;
        check_divides(("hidden_size", self.hidden_size), ("num_attention_heads", self.num_attention_heads))?;
        check_divides(("image_size", self.image_size), ("patch_size", self.patch_size))?;
        positive("layer_norm_eps", self.layer_norm_eps)
    }
}

impl Check for TextSizes {
    fn check(&self) -> Checked {
        check_positive(&[
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("head_dim", self.head_dim),
            ("vocab_size", self.vocab_size),
        ])?;
        let heads = ("num_attention_heads", self.num_attention_heads);
        check_divides(heads, ("num_key_value_heads", self.num_key_value_heads))?;
        positive("rms_norm_eps", self.rms_norm_eps)?;
        positive("rope_theta", self.rope_theta)?;
        let message = format!("{} is odd, but rotary positions rotate pairs of dimensions", self.head_dim);
        require(self.head_dim % 2 == 0, "head_dim", message, "set it to an even number")
    }
}
