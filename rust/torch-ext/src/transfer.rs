//! Copies between host and device: of batches, which compute does not wait for, and of weights for a checkpoint.
#![allow(unsafe_code)] // each call hands borrowed lists to the C++ shim

use crate::{TorchError, ffi};
use std::{borrow::Borrow, ptr};
use tch::{Device, Tensor};

/// Copies batches to one device from a thread of its own.
///
/// On CUDA each copy goes through pinned memory on a separate stream, so it overlaps with the kernels that the training thread
/// has queued. On the CPU nothing is copied.
pub struct HostToDevice {
    target: Target,
}

enum Target {
    Cpu,
    Cuda { index: i64, stream: i64 },
}

impl HostToDevice {
    /// Prepares copies to `device`; CUDA must have been started.
    ///
    /// # Errors
    /// A device that libtorch does not have.
    pub fn new(device: Device) -> Result<Self, TorchError> {
        let index = ffi::device_index(device)?;
        if index < 0 {
            return Ok(Self { target: Target::Cpu });
        }
        let mut stream = 0;
        // SAFETY: a number that the callee sets.
        ffi::check("copy stream", unsafe { ffi::hlrp_copy_stream(index, &mut stream) })?;
        Ok(Self { target: Target::Cuda { index, stream } })
    }

    /// Brings CPU tensors to the device. Returns when the copies are complete; blocks this thread only.
    ///
    /// # Errors
    /// Out of memory on the device or of pinned memory.
    pub fn copy(&self, tensors: Vec<Tensor>) -> Result<Vec<Tensor>, TorchError> {
        let Target::Cuda { index, stream } = self.target else { return Ok(tensors) };
        let list = ffi::pointers(&tensors);
        let mut out = vec![ptr::null_mut(); tensors.len()];
        // SAFETY: a list of live tensors that the callee does not keep, and as many slots that it fills on success.
        ffi::check("copy to the device", unsafe {
            ffi::hlrp_copy_to_cuda(list.len(), list.as_ptr(), index, stream, out.as_mut_ptr())
        })?;
        Ok(out.into_iter().map(ffi::take_tensor).collect())
    }
}

/// A small CPU tensor on `device`, through pinned memory: the copy is queued behind the work of this thread, which waits for nothing.
pub fn queued_copy(tensor: &Tensor, device: Device) -> Tensor {
    if device == Device::Cpu {
        return tensor.shallow_clone();
    }
    tensor.internal_pin_memory(device).to_device_(device, tensor.kind(), true, false)
}

/// Contiguous copies of CPU tensors, or of those of one device, in the host's memory. Those of a device go to pinned memory, all of them
/// are in flight together, and this thread waits once for the work that it has queued.
///
/// # Errors
/// Out of memory.
pub fn snapshot<T: Borrow<Tensor>>(tensors: &[T]) -> Result<Vec<Tensor>, TorchError> {
    let list = ffi::pointers(tensors);
    let mut out = vec![ptr::null_mut(); tensors.len()];
    // SAFETY: a list of live tensors that the callee does not keep, and as many slots that it fills on success.
    ffi::check("snapshot", unsafe { ffi::hlrp_snapshot(list.len(), list.as_ptr(), out.as_mut_ptr()) })?;
    Ok(out.into_iter().map(ffi::take_tensor).collect())
}
