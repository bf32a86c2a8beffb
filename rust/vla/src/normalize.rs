//! Vectors of a robot to the scale of a model, and back, from the statistics of a dataset.
//!
//! Formulas and epsilon are LeRobot's (`NormalizerProcessorStep`), so that its processors can use the same statistics. A dimension that is
//! constant in the statistics keeps its own scale: divided by next to nothing, the smallest move would be a number that no model can use.

use hlrp_schema::policy::{Scaling, ScalingMode};
use tch::{Device, Kind, Tensor};

/// Added to the std, as LeRobot does.
const EPS: f64 = 1e-8;
/// A std or range up to this, or up to this fraction of the values' magnitude, is rounding: float32 has seven digits.
const ROUNDING: f64 = 1e-6;
/// Scaled values farther from 0 are far outside of the statistics.
const FAR: f64 = 100.0;

/// `[…, dim]` to the model's scale, float32; the scaling is resolved.
pub fn normalize(scaling: &Scaling, x: &Tensor) -> Tensor {
    let x = x.to_kind(Kind::Float);
    match scaling.mode {
        ScalingMode::Identity => x,
        ScalingMode::MeanStd => {
            let [mean, std] = statistics(scaling, x.device());
            let spread = spread(&(std + EPS), &mean);
            (x - mean) / spread
        }
        ScalingMode::MinMax | ScalingMode::Quantiles => {
            let [low, high] = statistics(scaling, x.device());
            (x - &low) * 2.0 / spread(&(high - &low), &low) - 1.0
        }
    }
}

/// `[…, dim]` back to the robot's scale, float32; the scaling is resolved.
pub fn unnormalize(scaling: &Scaling, x: &Tensor) -> Tensor {
    let x = x.to_kind(Kind::Float);
    match scaling.mode {
        ScalingMode::Identity => x,
        ScalingMode::MeanStd => {
            let [mean, std] = statistics(scaling, x.device());
            x * spread(&(std + EPS), &mean) + mean
        }
        ScalingMode::MinMax | ScalingMode::Quantiles => {
            let [low, high] = statistics(scaling, x.device());
            (x + 1.0) / 2.0 * spread(&(high - &low), &low) + low
        }
    }
}

/// The two statistics of the mode, float32.
fn statistics(scaling: &Scaling, device: Device) -> [Tensor; 2] {
    let of = |index: usize| {
        let name = scaling.mode.needs().get(index);
        let values = name.zip(scaling.statistics.as_ref()).and_then(|(name, statistics)| statistics.get(*name));
        debug_assert!(values.is_some(), "a resolved scaling has its statistics");
        Tensor::from_slice(values.map_or(&[], Vec::as_slice)).to_kind(Kind::Float).to_device(device)
    };
    [of(0), of(1)]
}

/// A std or range, 1 where a dimension of the magnitude `around` is constant.
fn spread(spread: &Tensor, around: &Tensor) -> Tensor {
    let is_constant = spread.le_tensor(&(around.abs() * ROUNDING).clamp_min(2.0 * EPS));
    spread.where_self(&is_constant.logical_not(), &spread.full_like(1.0))
}

/// The dimensions in which values of `ranges` (smallest and largest) are far outside of the statistics, or differ at all from a constant.
pub(crate) fn far_outside(scaling: &Scaling, ranges: &[[f64; 2]]) -> Vec<usize> {
    if scaling.mode == ScalingMode::Identity || ranges.iter().flatten().any(|value| !value.is_finite()) {
        return Vec::new();
    }
    let of = |side: usize| Tensor::from_slice(&ranges.iter().map(|range| range[side]).collect::<Vec<_>>());
    let scaled = [of(0), of(1)].map(|values| normalize(scaling, &values));
    let [center, scale] = statistics(scaling, Device::Cpu);
    let raw = if scaling.mode == ScalingMode::MeanStd { scale } else { scale - &center };
    let limit = center.abs() * ROUNDING * 10.0 + ROUNDING;
    let is_constant = raw.le_tensor(&(center.abs() * ROUNDING).clamp_min(2.0 * EPS));
    let moved = [of(0), of(1)].map(|values| (values.to_kind(Kind::Float) - &center).abs().gt_tensor(&limit));
    let is_far = scaled[0].abs().maximum(&scaled[1].abs()).gt(FAR);
    let is_far = is_far.logical_or(&moved[0].logical_or(&moved[1]).logical_and(&is_constant));
    (0..ranges.len()).filter(|at| is_far.int64_value(&[*at as i64]) != 0).collect()
}
