//! Vectors of a robot to the scale of a model, and back, from the statistics of a dataset.
//!
//! Formulas and epsilon are LeRobot's (`NormalizerProcessorStep`), so that its processors can use the same statistics. A dimension that is
//! constant in the statistics has a std or range of 1: divided by nearly 0, the smallest move would become a number that no model can use.

use hlrp_schema::policy::{Scaling, ScalingMode};
use hlrp_torch::queued_copy;
use tch::{Device, Kind, Tensor};

/// Added to the std, as LeRobot does.
const EPS: f64 = 1e-8;
/// A std or range up to this fraction of the values' magnitude is rounding: float32 has seven digits. The plugin has the same two limits.
const ROUNDING: f64 = 1e-6;
/// A std or range up to this is rounding, whatever the magnitude.
const SMALLEST: f64 = 2e-8;
/// A normalised value beyond this is far outside its statistics. The plugin has the same limit.
const FAR: f64 = 100.0;

/// `[…, dim]` to the model's scale, float32; the scaling is resolved.
pub fn normalize(scaling: &Scaling, x: &Tensor) -> Tensor {
    let x = x.to_kind(Kind::Float);
    match scaling.mode {
        ScalingMode::Identity => x,
        ScalingMode::MeanStd => {
            let Scale { center, divisor, .. } = Scale::of(scaling, x.device());
            (x - center) / divisor
        }
        ScalingMode::MinMax | ScalingMode::Quantiles => {
            let Scale { center, divisor, .. } = Scale::of(scaling, x.device());
            (x - center) * 2.0 / divisor - 1.0
        }
    }
}

/// `[…, dim]` back to the robot's scale, float32; the scaling is resolved.
pub fn unnormalize(scaling: &Scaling, x: &Tensor) -> Tensor {
    let x = x.to_kind(Kind::Float);
    match scaling.mode {
        ScalingMode::Identity => x,
        ScalingMode::MeanStd => {
            let Scale { center, divisor, .. } = Scale::of(scaling, x.device());
            x * divisor + center
        }
        ScalingMode::MinMax | ScalingMode::Quantiles => {
            let Scale { center, divisor, .. } = Scale::of(scaling, x.device());
            (x + 1.0) / 2.0 * divisor + center
        }
    }
}

/// The two statistics of the mode, float32.
fn statistics(scaling: &Scaling, device: Device) -> [Tensor; 2] {
    let of = |index: usize| {
        let name = scaling.mode.needs().get(index);
        let values = name.zip(scaling.statistics.as_ref()).and_then(|(name, statistics)| statistics.get(*name));
        debug_assert!(values.is_some(), "a resolved scaling has its statistics");
        queued_copy(&Tensor::from_slice(values.map_or(&[], Vec::as_slice)).to_kind(Kind::Float), device)
    };
    [of(0), of(1)]
}

/// How each dimension is scaled.
pub(crate) struct Scale {
    /// The mean, or the lower end of the range.
    pub(crate) center: Tensor,
    /// Std plus ε, or the range; 1 where the dimension is constant.
    pub(crate) divisor: Tensor,
    /// Whether std or range are no more than rounding.
    is_constant: Tensor,
}

impl Scale {
    pub(crate) fn of(scaling: &Scaling, device: Device) -> Self {
        let [center, end] = statistics(scaling, device);
        let (spread, eps) = if scaling.mode == ScalingMode::MeanStd { (end, EPS) } else { (end - &center, 0.0) };
        let is_constant = spread.le_tensor(&(center.abs() * ROUNDING).clamp_min(SMALLEST));
        let divisor = (spread + eps).where_self(&is_constant.logical_not(), &center.full_like(1.0));
        Self { center, divisor, is_constant }
    }
}

/// The dimensions of `ranges` (smallest and largest value) that are far outside the statistics, or that are constant in the statistics
/// and not in `ranges`. A dimension without a finite value is not among them.
pub(crate) fn far_outside(scaling: &Scaling, ranges: &[[f64; 2]]) -> Vec<usize> {
    if scaling.mode == ScalingMode::Identity {
        return Vec::new();
    }
    let Scale { center, is_constant, .. } = Scale::of(scaling, Device::Cpu);
    let tolerance = center.abs() * ROUNDING * 10.0 + ROUNDING;
    let end_is_far = |end: usize| {
        let values =
            Tensor::from_slice(&ranges.iter().map(|range| range[end]).collect::<Vec<_>>()).to_kind(Kind::Float);
        let has_moved = (&values - &center).abs().gt_tensor(&tolerance).logical_and(&is_constant);
        normalize(scaling, &values).abs().gt(FAR).logical_or(&has_moved)
    };
    let is_far = end_is_far(0).logical_or(&end_is_far(1));
    let has_values = |at: usize| ranges[at].iter().all(|value| value.is_finite());
    (0..ranges.len()).filter(|at| has_values(*at) && is_far.int64_value(&[*at as i64]) != 0).collect()
}
