//! AdamW through libtorch's fused kernel.

use crate::{TorchError, ffi};
use tch::Tensor;

/// Numbers of one AdamW step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
}

/// One AdamW step (Loshchilov and Hutter, 2019, as in `torch.optim.AdamW(fused=True)`) on all tensors of a list:
///
/// `t += 1; p *= 1 - lr*weight_decay; m = beta1*m + (1-beta1)*g; v = beta2*v + (1-beta2)*g²;`
/// `p -= lr/(1-beta1^t) * m / (sqrt(v)/sqrt(1-beta2^t) + eps)`
///
/// `params`, `grads`, `exp_avgs`, `exp_avg_sqs` have equal shapes entry by entry; `steps` are float32 tensors with one entry.
/// Changes `params`, the moments and `steps` in place. Runs without a host synchronisation.
///
/// # Errors
/// Lists of different lengths, or whatever libtorch refuses.
pub fn fused_adamw(
    params: &[Tensor],
    grads: &[Tensor],
    exp_avgs: &[Tensor],
    exp_avg_sqs: &[Tensor],
    steps: &[Tensor],
    step: AdamWStep,
) -> Result<(), TorchError> {
    let count = params.len();
    if [grads.len(), exp_avgs.len(), exp_avg_sqs.len(), steps.len()].iter().any(|&len| len != count) {
        let message = "parameters, gradients, moments and steps are lists of different lengths".to_owned();
        return Err(TorchError::Shape { operation: "fused_adamw", message });
    }
    if count == 0 {
        return Ok(());
    }
    let [params, grads, exp_avgs, exp_avg_sqs, steps] =
        [params, grads, exp_avgs, exp_avg_sqs, steps].map(ffi::pointers);
    #[allow(unsafe_code)]
    // SAFETY: five lists of `count` live tensors; the callee keeps none of them.
    let message = unsafe {
        ffi::hlrp_fused_adamw(
            count,
            params.as_ptr(),
            grads.as_ptr(),
            exp_avgs.as_ptr(),
            exp_avg_sqs.as_ptr(),
            steps.as_ptr(),
            step.lr,
            step.beta1,
            step.beta2,
            step.weight_decay,
            step.eps,
        )
    };
    ffi::check("fused_adamw", message)
}
