//! Vectors of a robot to the scale that a model works in, and back, from the statistics of a dataset.
//!
//! Formulas and epsilon are LeRobot's (`NormalizerProcessorStep`), so that its processors can take over the statistics.

use crate::VlaError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

/// Keeps constant features finite.
const EPS: f64 = 1e-8;

/// How a feature is scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormalizationMode {
    /// As it is.
    Identity,
    /// `(x − mean) / (std + ε)`.
    MeanStd,
    /// From `[min, max]` to [−1, 1].
    MinMax,
    /// From the 1 % and 99 % quantiles to [−1, 1]; not clipped.
    Quantiles,
}

impl NormalizationMode {
    /// Names of the statistics that it needs.
    fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Identity => &[],
            Self::MeanStd => &["mean", "std"],
            Self::MinMax => &["min", "max"],
            Self::Quantiles => &["q01", "q99"],
        }
    }
}

/// Scaling of one feature, with everything that is needed to redo or undo it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// How it is scaled.
    pub mode: NormalizationMode,
    /// Numbers of the feature.
    pub dim: usize,
    /// Statistics by their names in LeRobot's `stats.json`; at least those that the mode needs.
    pub statistics: BTreeMap<String, Vec<f64>>,
}

impl Normalization {
    /// Scaling of `feature` (its name in errors) with `dim` numbers.
    ///
    /// # Errors
    /// A statistic that the mode needs is missing, has another length or holds a number that is not finite.
    pub fn new(
        feature: &str,
        mode: NormalizationMode,
        dim: usize,
        statistics: BTreeMap<String, Vec<f64>>,
    ) -> Result<Self, VlaError> {
        let normalization = Self { mode, dim, statistics };
        normalization.check(feature)?;
        Ok(normalization)
    }

    /// As [`Normalization::new`], for one that was read from a file.
    ///
    /// # Errors
    /// See there.
    pub fn check(&self, feature: &str) -> Result<(), VlaError> {
        let refuse = |problem: String| {
            let hint = "compute the dataset's meta/stats.json anew, or choose another normalisation for this feature";
            Err(VlaError::input(format!("statistics of `{feature}`"), problem, hint))
        };
        for name in self.mode.needs() {
            let Some(values) = self.statistics.get(*name) else {
                return refuse(format!("there is no `{name}`"));
            };
            if values.len() != self.dim {
                return refuse(format!("`{name}` has {} numbers where {} are needed", values.len(), self.dim));
            }
            if values.iter().any(|value| !value.is_finite()) {
                return refuse(format!("`{name}` holds a number that is not finite"));
            }
        }
        Ok(())
    }

    /// `[…, dim]` to the model's scale, float32.
    pub fn normalize(&self, x: &Tensor) -> Tensor {
        let x = x.to_kind(Kind::Float);
        match self.mode {
            NormalizationMode::Identity => x,
            NormalizationMode::MeanStd => {
                let [mean, std] = self.tensors(x.device());
                (x - mean) / (std + EPS)
            }
            NormalizationMode::MinMax | NormalizationMode::Quantiles => {
                let [low, high] = self.tensors(x.device());
                (x - &low) * 2.0 / span(&low, &high) - 1.0
            }
        }
    }

    /// `[…, dim]` back to the robot's scale, float32.
    pub fn unnormalize(&self, x: &Tensor) -> Tensor {
        let x = x.to_kind(Kind::Float);
        match self.mode {
            NormalizationMode::Identity => x,
            NormalizationMode::MeanStd => {
                let [mean, std] = self.tensors(x.device());
                x * (std + EPS) + mean
            }
            NormalizationMode::MinMax | NormalizationMode::Quantiles => {
                let [low, high] = self.tensors(x.device());
                (x + 1.0) / 2.0 * span(&low, &high) + low
            }
        }
    }

    /// The two statistics of the mode, float32.
    fn tensors(&self, device: Device) -> [Tensor; 2] {
        let of = |index: usize| {
            let values = self.mode.needs().get(index).and_then(|name| self.statistics.get(*name));
            Tensor::from_slice(values.map_or(&[], Vec::as_slice)).to_kind(Kind::Float).to_device(device)
        };
        [of(0), of(1)]
    }
}

/// `high − low`, ε where a feature is constant.
fn span(low: &Tensor, high: &Tensor) -> Tensor {
    let span = high - low;
    span.where_self(&span.not_equal(0.0), &span.full_like(EPS))
}
