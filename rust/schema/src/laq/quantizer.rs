//! Section `model.quantizer`: how the change between two frames becomes what the decoders see.

use crate::rules::{Checked, at_least, fraction, not_negative, require, section};
use hlrp_config::{Check, Problem, ProblemKind};
use serde::{Deserialize, Serialize};

/// How the change between two frames becomes codes: what every quantizer shares, and the section of the one in use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantizerConfig {
    /// K; of no use where the latent is continuous.
    pub codebook_size: i64,
    /// S, codes per frame pair.
    pub code_seq_len: i64,
    /// Width of a code vector.
    pub code_dim: i64,
    /// Fraction of the old average per step in the running code frequencies.
    pub usage_decay: f64,
    /// Fraction of K below which the running perplexity is reported as a collapse.
    pub collapse_perplexity: f64,
    /// How changes are scaled before they are quantized.
    pub normalization: Normalization,
    /// Fraction of the old average per step in the running mean and variance of the changes.
    pub normalization_decay: f64,
    /// Steps at the start in which the decoders see the changes themselves.
    pub unquantized_steps: u64,
    /// Whether k-means over the last changes sets the codes at the first quantized step.
    pub kmeans_start: bool,
    /// Channels of the grid encoder before its last layer; none = `code_dim`.
    pub grid_width: Option<i64>,
    /// Whether a learned vector for each slot is added to its action token.
    pub slot_embedding: bool,
    /// Noise substitution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nsvq: Option<NsvqConfig>,
    /// A codebook of running means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ema_vq: Option<EmaVqConfig>,
    /// Finite scalar quantization.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fsq: Option<FsqConfig>,
    /// Continuous latents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub none: Option<NoQuantizerConfig>,
}

/// How changes are scaled before they are quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalization {
    /// Not at all.
    None,
    /// Each slot's vector to mean 0 and variance 1 over its dimensions.
    LayerNorm,
    /// Each dimension of each slot to mean 0 and variance 1 over the batch; by running statistics in evaluation.
    BatchNorm,
}

/// The one quantizer that a configuration has.
#[derive(Debug, Clone, Copy)]
pub enum QuantizerMethod<'a> {
    /// Noise substitution.
    Nsvq(&'a NsvqConfig),
    /// A codebook of running means.
    EmaVq(&'a EmaVqConfig),
    /// Finite scalar quantization.
    Fsq(&'a FsqConfig),
    /// Continuous latents.
    Continuous,
}

/// Section `model.quantizer.nsvq`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NsvqConfig {
    /// A code used less often than this fraction of the mean use is rewritten at a refresh.
    pub discarding_threshold: f64,
    /// Which codes a refresh copies; none = [`NsvqDonors::Index`], which is what a checkpoint without the key means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub donors: Option<NsvqDonors>,
    /// `[interval, until]` in optimizer steps; none = never.
    pub refresh_schedule: Vec<[u64; 2]>,
}

/// Which of the codes in use a refresh copies into rewritten ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NsvqDonors {
    /// In the order of their index; repeated and shuffled where they are too few.
    Index,
    /// Drawn in proportion to their use since the last refresh: where many changes are, codes return.
    Usage,
}

/// Section `model.quantizer.ema_vq`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmaVqConfig {
    /// Fraction of the old average per step in a code's use and in the sum of its changes.
    pub decay: f64,
    /// Factor on the squared distance of a change to its code.
    pub commitment_weight: f64,
    /// A code whose running use is below this fraction of the mean use restarts at a change of the batch.
    pub restart_threshold: f64,
}

/// Section `model.quantizer.fsq`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FsqConfig {
    /// Levels of each dimension.
    pub levels: Vec<i64>,
}

/// Section `model.quantizer.none`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoQuantizerConfig {}

/// Fewest levels of a dimension: with two, the formula that bounds them is not symmetric.
const MIN_LEVELS: i64 = 3;

impl Check for QuantizerConfig {
    fn check(&self) -> Checked {
        at_least("codebook_size", self.codebook_size, 2)?;
        at_least("code_seq_len", self.code_seq_len, 1)?;
        at_least("code_dim", self.code_dim, 1)?;
        at_least("grid_width", self.grid_width.unwrap_or(1), 1)?;
        fraction("usage_decay", self.usage_decay, true)?;
        fraction("normalization_decay", self.normalization_decay, true)?;
        fraction("collapse_perplexity", self.collapse_perplexity, true)?;
        require(
            self.normalization != Normalization::LayerNorm || self.code_dim > 1,
            "normalization",
            "layer_norm of one value (code_dim=1) is always 0",
            "set it to batch_norm, or raise code_dim",
        )?;
        match self.method()? {
            QuantizerMethod::Nsvq(nsvq) => section("nsvq", nsvq.check()),
            QuantizerMethod::EmaVq(ema_vq) => section("ema_vq", ema_vq.check()),
            QuantizerMethod::Fsq(fsq) => {
                section("fsq", fsq.check())?;
                self.check_levels(fsq)?;
                self.check_has_codebook("fsq")
            }
            QuantizerMethod::Continuous => {
                require(
                    self.unquantized_steps == 0,
                    "unquantized_steps",
                    "the quantizer is none: no step is quantized",
                    "set it to 0",
                )?;
                self.check_has_codebook("none")
            }
        }
    }
}

impl QuantizerConfig {
    /// The quantizer in use.
    ///
    /// # Errors
    /// None has a section, or several have one.
    pub fn method(&self) -> Result<QuantizerMethod<'_>, Problem> {
        let known = [
            ("nsvq", self.nsvq.as_ref().map(QuantizerMethod::Nsvq)),
            ("ema_vq", self.ema_vq.as_ref().map(QuantizerMethod::EmaVq)),
            ("fsq", self.fsq.as_ref().map(QuantizerMethod::Fsq)),
            ("none", self.none.as_ref().map(|_| QuantizerMethod::Continuous)),
        ];
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

    /// The codes of finite scalar quantization are all combinations of levels.
    fn check_levels(&self, fsq: &FsqConfig) -> Checked {
        let num_dims = i64::try_from(fsq.levels.len()).unwrap_or(i64::MAX);
        require(
            num_dims == self.code_dim,
            "code_dim",
            format!("{}, but fsq.levels has {num_dims} dimensions", self.code_dim),
            format!("set it to {num_dims}"),
        )?;
        let num_codes = fsq.levels.iter().try_fold(1_i64, |product, levels| product.checked_mul(*levels));
        let product = num_codes.map_or("too many to count".to_owned(), |product| product.to_string());
        require(
            num_codes == Some(self.codebook_size),
            "codebook_size",
            format!("{}, but fsq.levels has {product} combinations", self.codebook_size),
            "set it to the product of fsq.levels",
        )
    }

    fn check_has_codebook(&self, name: &str) -> Checked {
        require(
            !self.kmeans_start,
            "kmeans_start",
            format!("the quantizer {name} has no codebook to set"),
            "set it to false, or choose model/quantizer=ema_vq or nsvq",
        )
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

impl Check for EmaVqConfig {
    fn check(&self) -> Checked {
        fraction("decay", self.decay, true)?;
        not_negative("commitment_weight", self.commitment_weight)?;
        fraction("restart_threshold", self.restart_threshold, true)
    }
}

impl Check for FsqConfig {
    fn check(&self) -> Checked {
        require(
            !self.levels.is_empty(),
            "levels",
            "no dimension",
            "give the levels of each dimension, such as [5,5,5]",
        )?;
        self.levels.iter().try_for_each(|levels| at_least("levels", *levels, MIN_LEVELS))
    }
}
