//! Vectors of a robot to the scale of a model, and back, from the statistics of a dataset.
//!
//! Formulas and epsilon are LeRobot's (`NormalizerProcessorStep`), so that its processors can use the same statistics.

use hlrp_schema::policy::{Scaling, ScalingMode};
use tch::{Device, Kind, Tensor};

/// Keeps constant features finite.
const EPS: f64 = 1e-8;

/// `[…, dim]` to the model's scale, float32; the scaling is resolved.
pub fn normalize(scaling: &Scaling, x: &Tensor) -> Tensor {
    let x = x.to_kind(Kind::Float);
    match scaling.mode {
        ScalingMode::Identity => x,
        ScalingMode::MeanStd => {
            let [mean, std] = statistics(scaling, x.device());
            (x - mean) / (std + EPS)
        }
        ScalingMode::MinMax | ScalingMode::Quantiles => {
            let [low, high] = statistics(scaling, x.device());
            (x - &low) * 2.0 / span(&low, &high) - 1.0
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
            x * (std + EPS) + mean
        }
        ScalingMode::MinMax | ScalingMode::Quantiles => {
            let [low, high] = statistics(scaling, x.device());
            (x + 1.0) / 2.0 * span(&low, &high) + low
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

/// `high − low`, ε where a feature is constant.
fn span(low: &Tensor, high: &Tensor) -> Tensor {
    let span = high - low;
    span.where_self(&span.not_equal(0.0), &span.full_like(EPS))
}
