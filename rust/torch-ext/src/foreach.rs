//! Operations on whole lists of tensors, without a host synchronisation.
#![allow(unsafe_code)] // each call hands borrowed lists to the C++ shim

use crate::{TorchError, ffi};
use std::ptr;
use tch::Tensor;

/// Global L2 norm over all tensors: a scalar on their device, the norm of the norms as in `torch.nn.utils.get_total_norm`.
///
/// # Errors
/// An empty list, or whatever libtorch refuses.
pub fn norm(tensors: &[Tensor]) -> Result<Tensor, TorchError> {
    let list = ffi::pointers(tensors);
    let mut out = ptr::null_mut();
    // SAFETY: a list of live tensors that the callee does not keep; `out` is set on success.
    ffi::check("norm", unsafe { ffi::hlrp_foreach_norm(list.len(), list.as_ptr(), &mut out) })?;
    Ok(ffi::take_tensor(out))
}

/// Multiplies every tensor in place by `factor`, a scalar on their device.
///
/// # Errors
/// Whatever libtorch refuses.
pub fn mul_by_scalar(tensors: &[Tensor], factor: &Tensor) -> Result<(), TorchError> {
    let list = ffi::pointers(tensors);
    // SAFETY: a list of live tensors and one live tensor that the callee does not keep.
    ffi::check("mul_by_scalar", unsafe { ffi::hlrp_foreach_mul(list.len(), list.as_ptr(), factor.as_ptr()) })
}

/// Moves every tensor in place towards its partner: `x += weight * (end - x)`.
///
/// # Errors
/// Lists of different lengths, or whatever libtorch refuses.
pub fn lerp(tensors: &[Tensor], ends: &[Tensor], weight: f64) -> Result<(), TorchError> {
    if tensors.len() != ends.len() {
        let message = format!("{} tensors, {} ends", tensors.len(), ends.len());
        return Err(TorchError::Shape { operation: "lerp", message });
    }
    let [list, end_list] = [tensors, ends].map(ffi::pointers);
    // SAFETY: two lists of equal length of live tensors that the callee does not keep.
    ffi::check("lerp", unsafe { ffi::hlrp_foreach_lerp(list.len(), list.as_ptr(), end_list.as_ptr(), weight) })
}

/// Sets the gradient of each tensor; an undefined one stands for none.
///
/// # Errors
/// Lists of different lengths, or a gradient of another shape.
pub fn set_grads(tensors: &[Tensor], grads: &[Tensor]) -> Result<(), TorchError> {
    let is_alike = |(tensor, grad): (&Tensor, &Tensor)| !grad.defined() || grad.size() == tensor.size();
    if tensors.len() != grads.len() || !tensors.iter().zip(grads).all(is_alike) {
        let message = "tensors and gradients differ in number or shape".to_owned();
        return Err(TorchError::Shape { operation: "set_grads", message });
    }
    let [list, grad_list] = [tensors, grads].map(ffi::pointers);
    // SAFETY: two lists of equal length of live tensors; the callee keeps references of its own to the gradients.
    ffi::check("set_grads", unsafe { ffi::hlrp_set_grads(list.len(), list.as_ptr(), grad_list.as_ptr()) })
}

/// Removes the gradients (they become undefined, not zero), so that the next backward pass stores its own without adding.
///
/// # Errors
/// Whatever libtorch refuses.
pub fn clear_grads(tensors: &[Tensor]) -> Result<(), TorchError> {
    let list = ffi::pointers(tensors);
    // SAFETY: a list of live tensors that the callee does not keep.
    ffi::check("clear_grads", unsafe { ffi::hlrp_clear_grads(list.len(), list.as_ptr()) })
}
