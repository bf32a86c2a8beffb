//! The whole tree of stage 1.

use crate::data::DataConfig;
use crate::rules::{Checked, at_least, fraction, not_negative, require, section};
use crate::run::{TrainingRun, check_training, stage_config};
use crate::training::{TrainingConfig, ValidationConfig};
use hlrp_config::{Check, Problem};
use serde::{Deserialize, Serialize};

stage_config! {
    /// Everything that `hlrp train-laq` reads.
    LaqConfig of Laq {
        /// The model.
        model: LaqModelConfig,
        /// The data.
        data: DataConfig,
        /// The optimization.
        training: TrainingConfig,
        /// The validation.
        validation: ValidationConfig,
    }
}

/// Section `model` of stage 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // each key is explained beside its default in config/model/laq_pixel.yaml
pub struct LaqModelConfig {
    pub name: String,
    pub image_size: i64,
    pub patch_size: i64,
    pub channels: i64,
    pub dim: i64,
    pub heads: i64,
    pub dim_head: i64,
    pub spatial_depth: i64,
    pub temporal_depth: i64,
    pub attn_dropout: f64,
    pub ff_dropout: f64,
    pub quant_dim: i64,
    pub codebook_size: i64,
    pub code_seq_len: i64,
    pub vq_discarding_threshold: f64,
    pub codebook_replace_schedule: Vec<[u64; 2]>,
    pub usage_decay: f64,
    pub collapse_perplexity: f64,
    pub latent_ablation: LatentAblation,
    pub token_decoder: DecoderConfig,
    pub pixel_decoder: DecoderConfig,
    pub aux_decoder: DecoderConfig,
}

/// Whether the decoders see the sample's own codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LatentAblation {
    /// Own codes.
    None,
    /// Another sample's codes: a control.
    PermuteBatch,
}

/// One decoder of the latent action model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderConfig {
    /// Whether it exists.
    pub enabled: bool,
    /// Transformer layers.
    pub depth: i64,
    /// Factor on its loss.
    pub loss_weight: f64,
    /// Steps over which the factor rises linearly from 0.
    pub warmup_steps: u64,
}

/// Patches per side that the quantizer supports, each with the numbers of codes that it can produce.
const CODES_OF_GRID: [(i64, &[i64]); 2] = [(8, &[1, 2, 4]), (16, &[1, 4, 16, 64])];

impl Check for LaqConfig {
    fn check(&self) -> Checked {
        check_training(&self.run())?;
        section("model", self.model.check())?;
        let deltas = &self.data.request.image_deltas;
        require(
            deltas.len() == 2 && deltas[0] < deltas[1],
            "data.request.image_deltas",
            "a latent action needs two frames, the earlier one first",
            "give two ascending offsets, for example [0,5]",
        )
    }
}

impl Check for LaqModelConfig {
    fn check(&self) -> Checked {
        let counts = [
            ("image_size", self.image_size),
            ("patch_size", self.patch_size),
            ("channels", self.channels),
            ("dim", self.dim),
            ("heads", self.heads),
            ("dim_head", self.dim_head),
            ("spatial_depth", self.spatial_depth),
            ("temporal_depth", self.temporal_depth),
            ("quant_dim", self.quant_dim),
            ("code_seq_len", self.code_seq_len),
        ];
        counts.into_iter().try_for_each(|(key, value)| at_least(key, value, 1))?;
        at_least("codebook_size", self.codebook_size, 2)?;
        self.check_grid()?;
        fraction("attn_dropout", self.attn_dropout, true)?;
        fraction("ff_dropout", self.ff_dropout, true)?;
        fraction("vq_discarding_threshold", self.vq_discarding_threshold, false)?;
        fraction("usage_decay", self.usage_decay, true)?;
        not_negative("collapse_perplexity", self.collapse_perplexity)?;
        require(
            self.codebook_replace_schedule.iter().all(|[interval, _]| *interval > 0),
            "codebook_replace_schedule",
            "an interval of 0 steps",
            "each entry is [interval, until] with an interval of 1 or more; [] = never",
        )?;
        section("token_decoder", self.token_decoder.check())?;
        section("pixel_decoder", self.pixel_decoder.check())?;
        section("aux_decoder", self.aux_decoder.check())?;
        require(
            self.token_decoder.enabled || self.pixel_decoder.enabled,
            "pixel_decoder.enabled",
            "no decoder trains the codes",
            "enable token_decoder or pixel_decoder; aux_decoder sends no gradient to the codes",
        )
    }
}

impl LaqModelConfig {
    fn check_grid(&self) -> Checked {
        let (image, patch) = (self.image_size, self.patch_size);
        let grid = if image % patch == 0 { image / patch } else { 0 };
        let Some((_, codes)) = CODES_OF_GRID.into_iter().find(|(known, _)| *known == grid) else {
            let message = format!("{image} pixels in patches of {patch} are not 8 or 16 patches per side");
            let hint = format!("set it to {} or {}", 8 * patch, 16 * patch);
            return Err(Problem::new("image_size", message, hint));
        };
        let known: Vec<String> = codes.iter().map(i64::to_string).collect();
        require(
            codes.contains(&self.code_seq_len),
            "code_seq_len",
            format!("{} codes do not fit {grid}x{grid} patches", self.code_seq_len),
            format!("with this image_size and patch_size use {}", known.join(", ")),
        )
    }
}

impl Check for DecoderConfig {
    fn check(&self) -> Checked {
        at_least("depth", self.depth, 1)?;
        not_negative("loss_weight", self.loss_weight)
    }
}
