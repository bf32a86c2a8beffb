//! The whole tree of stage 1.

use crate::data::DataConfig;
use crate::rules::{Checked, at_least, fraction, not_negative, require, section};
use crate::run::{TrainingRun, check_training, stage_config};
use crate::training::{TrainingConfig, ValidationConfig};
use hlrp_config::{Check, Problem, ProblemKind};
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
    pub quantizer: QuantizerConfig,
    pub decoders: DecodersConfig,
    pub latent_ablation: LatentAblation,
}

/// How the change between two frames becomes codes: what every quantizer shares, and the section of the one in use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantizerConfig {
    /// K.
    pub codebook_size: i64,
    /// S, codes per frame pair.
    pub code_seq_len: i64,
    /// Width of a code vector.
    pub code_dim: i64,
    /// Fraction of the old average per step in the running code frequencies.
    pub usage_decay: f64,
    /// Fraction of K below which the running perplexity is reported as a collapse.
    pub collapse_perplexity: f64,
    /// Noise substitution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nsvq: Option<NsvqConfig>,
}

/// The one quantizer that a configuration has.
#[derive(Debug, Clone, Copy)]
pub enum QuantizerMethod<'a> {
    /// Noise substitution.
    Nsvq(&'a NsvqConfig),
}

/// Section `model.quantizer.nsvq`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NsvqConfig {
    /// A code used less often than this fraction of the mean use is rewritten at a refresh.
    pub discarding_threshold: f64,
    /// `[interval, until]` in optimizer steps; none = never.
    pub refresh_schedule: Vec<[u64; 2]>,
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

/// What all decoders share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DecoderConfig {
    /// Whether it exists.
    pub enabled: bool,
    /// Transformer layers.
    pub depth: i64,
    /// Factor on its loss.
    pub loss_weight: f64,
    /// Steps over which the factor rises linearly from 0.
    pub warmup_steps: u64,
    /// Whether its loss reaches the codes; not a key but a property of the decoder.
    pub trains_codes: bool,
}

/// Defines the decoders: section `model.decoders`, and one struct for each with the keys of [`DecoderConfig`] (which serde cannot flatten into
/// a section that refuses unknown keys) and its own.
macro_rules! decoders {
    ($($(#[$doc:meta])* $section:ident: $name:ident, trains_codes: $trains_codes:literal, {
        $($(#[$key_doc:meta])* $key:ident: $type:ty),*
    })*) => {
        /// Section `model.decoders`: every decoder, in use or not. What was described before a decoder existed has no section of it.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct DecodersConfig {
            $(
                $(#[$doc])*
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $section: Option<$name>,
            )*
        }

        impl DecodersConfig {
            /// The shared keys of every decoder that has a section, by the section's name.
            pub fn all(&self) -> Vec<(&'static str, DecoderConfig)> {
                let all = [$((stringify!($section), self.$section.as_ref().map($name::shared))),*];
                all.into_iter().filter_map(|(name, shared)| Some((name, shared?))).collect()
            }
        }

        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
            #[serde(deny_unknown_fields)]
            pub struct $name {
                /// Whether it exists.
                pub enabled: bool,
                /// Transformer layers.
                pub depth: i64,
                /// Factor on its loss.
                pub loss_weight: f64,
                /// Steps over which the factor rises linearly from 0.
                pub warmup_steps: u64,
                $($(#[$key_doc])* pub $key: $type,)*
            }

            impl $name {
                /// The keys that all decoders share.
                pub fn shared(&self) -> DecoderConfig {
                    DecoderConfig {
                        enabled: self.enabled,
                        depth: self.depth,
                        loss_weight: self.loss_weight,
                        warmup_steps: self.warmup_steps,
                        trains_codes: $trains_codes,
                    }
                }
            }
        )*
    };
}

decoders! {
    /// Predicts the later frame's encoder tokens.
    token: TokenDecoderConfig, trains_codes: true, {}
    /// Predicts the later frame's pixels.
    pixel: PixelDecoderConfig, trains_codes: true, {}
    /// Predicts the later frame's pixels, for images only.
    aux: AuxDecoderConfig, trains_codes: false, {}
}

/// Patches per side that the grid encoder supports, each with the numbers of code slots that it can produce.
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
        ];
        counts.into_iter().try_for_each(|(key, value)| at_least(key, value, 1))?;
        fraction("attn_dropout", self.attn_dropout, true)?;
        fraction("ff_dropout", self.ff_dropout, true)?;
        section("quantizer", self.quantizer.check())?;
        self.check_grid()?;
        section("decoders", self.decoders.check())
    }
}

impl LaqModelConfig {
    fn check_grid(&self) -> Checked {
        let (image, patch, num_slots) = (self.image_size, self.patch_size, self.quantizer.code_seq_len);
        let grid = if image % patch == 0 { image / patch } else { 0 };
        let Some((_, known)) = CODES_OF_GRID.into_iter().find(|(known, _)| *known == grid) else {
            let message = format!("{image} pixels in patches of {patch} are not 8 or 16 patches per side");
            let hint = format!("set it to {} or {}", 8 * patch, 16 * patch);
            return Err(Problem::new("image_size", message, hint));
        };
        let names: Vec<String> = known.iter().map(i64::to_string).collect();
        require(
            known.contains(&num_slots),
            "quantizer.code_seq_len",
            format!("{num_slots} codes do not fit {grid}x{grid} patches"),
            format!("with this image_size and patch_size use {}", names.join(", ")),
        )
    }
}

impl Check for QuantizerConfig {
    fn check(&self) -> Checked {
        at_least("codebook_size", self.codebook_size, 2)?;
        at_least("code_seq_len", self.code_seq_len, 1)?;
        at_least("code_dim", self.code_dim, 1)?;
        fraction("usage_decay", self.usage_decay, true)?;
        not_negative("collapse_perplexity", self.collapse_perplexity)?;
        match self.method()? {
            QuantizerMethod::Nsvq(nsvq) => section("nsvq", nsvq.check()),
        }
    }
}

impl QuantizerConfig {
    /// The quantizer in use.
    ///
    /// # Errors
    /// None has a section, or several have one.
    pub fn method(&self) -> Result<QuantizerMethod<'_>, Problem> {
        let known = [("nsvq", self.nsvq.as_ref().map(QuantizerMethod::Nsvq))];
        let names = known.map(|(name, _)| name).join(", ");
        let chosen: Vec<_> = known.into_iter().filter_map(|(name, method)| Some((name, method?))).collect();
        if let [(_, method)] = chosen[..] {
            return Ok(method);
        }
        let message = match chosen.len() {
            0 => "no quantizer is chosen".to_owned(),
            _ => format!(
                "several quantizers are chosen: {}",
                chosen.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
            ),
        };
        Err(Problem::of(ProblemKind::Value, message).hint(format!("choose one with model/quantizer=NAME: {names}")))
    }
}

impl Check for NsvqConfig {
    fn check(&self) -> Checked {
        fraction("discarding_threshold", self.discarding_threshold, false)?;
        require(
            self.refresh_schedule.iter().all(|[interval, _]| *interval > 0),
            "refresh_schedule",
            "an interval of 0 steps",
            "each entry is [interval, until] with an interval of 1 or more; [] = never",
        )
    }
}

impl Check for DecodersConfig {
    fn check(&self) -> Checked {
        let all = self.all();
        all.iter().try_for_each(|(name, decoder)| section(name, decoder.check()))?;
        let training: Vec<_> = all.iter().filter(|(_, decoder)| decoder.trains_codes).map(|(name, _)| *name).collect();
        require(
            all.iter().any(|(_, decoder)| decoder.enabled && decoder.trains_codes),
            "pixel.enabled",
            "no decoder trains the codes",
            format!(
                "enable one of model.decoders.{{{}}}; the others send no gradient to the codes",
                training.join(",")
            ),
        )
    }
}

impl Check for DecoderConfig {
    fn check(&self) -> Checked {
        at_least("depth", self.depth, 1)?;
        not_negative("loss_weight", self.loss_weight)
    }
}
