//! Size of the gradient.

use crate::{Result, TrainError};
use tch::{Device, Kind, Tensor};

/// Added to the norm before the division, as in `torch.nn.utils.clip_grad_norm_`.
const EPSILON: f64 = 1e-6;

/// Global L2 norm of `grads`, a scalar on `device`; with `clip_norm`, scales them in place by
/// `min(1, clip_norm / (norm + 1e-6))` like `torch.nn.utils.clip_grad_norm_`. Does not wait for the device.
///
/// # Errors
/// Whatever libtorch refuses.
pub fn norm_and_clip(grads: &[Tensor], clip_norm: Option<f64>, device: Device) -> Result<Tensor> {
    if grads.is_empty() {
        return Ok(Tensor::zeros([], (Kind::Float, device)));
    }
    let norm = hlrp_torch::norm(grads)?;
    if let Some(clip_norm) = clip_norm {
        let factor = (clip_norm / (&norm + EPSILON)).clamp_max(1.0);
        hlrp_torch::mul_by_scalar(grads, &factor)?;
    }
    Ok(norm)
}

/// Refuses a limit that is not a positive number.
pub(crate) fn check(clip_norm: Option<f64>) -> Result<()> {
    match clip_norm {
        Some(limit) if !(limit.is_finite() && limit > 0.0) => Err(TrainError::Setting {
            key: "training.gradient.clip_norm",
            reason: format!("{limit} is not a positive number\n  hint: null means no clipping"),
        }),
        _ => Ok(()),
    }
}
