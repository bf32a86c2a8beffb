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

    /// Brings CPU tensors to the device, and returns what `prepare` makes of them there. Its work is queued on the stream of the copies too, so
    /// it must use nothing else that is on the device. Returns when everything is complete; blocks this thread only.
    ///
    /// # Errors
    /// Out of memory on the device or of pinned memory.
    pub fn copy<const N: usize>(
        &self,
        tensors: [Tensor; N],
        prepare: impl FnOnce([Tensor; N]) -> [Tensor; N],
    ) -> Result<[Tensor; N], TorchError> {
        let Target::Cuda { index, stream } = self.target else { return Ok(prepare(tensors)) };
        let _current = CurrentStream::exchange(index, stream)?;
        let list = ffi::pointers(&tensors);
        let mut out = [ptr::null_mut(); N];
        // SAFETY: a list of live tensors that the callee does not keep, and as many slots that it fills on success.
        ffi::check("copy to the device", unsafe {
            ffi::hlrp_copy_to_cuda(list.len(), list.as_ptr(), index, out.as_mut_ptr())
        })?;
        let prepared = prepare(out.map(ffi::take_tensor));
        let list = ffi::pointers(&prepared);
        // SAFETY: a list of live tensors that the callee does not keep.
        ffi::check("copy to the device", unsafe { ffi::hlrp_hand_over(list.len(), list.as_ptr(), index) })?;
        Ok(prepared)
    }
}

/// While it lives, this thread queues its work on another stream of a device.
struct CurrentStream {
    index: i64,
    former: i64,
}

impl CurrentStream {
    fn exchange(index: i64, stream: i64) -> Result<Self, TorchError> {
        let mut former = 0;
        // SAFETY: a number that the callee sets.
        ffi::check("copy stream", unsafe { ffi::hlrp_exchange_stream(index, stream, &mut former) })?;
        Ok(Self { index, former })
    }
}

impl Drop for CurrentStream {
    fn drop(&mut self) {
        let mut other = 0;
        // SAFETY: a number that the callee sets.
        ffi::check("copy stream", unsafe { ffi::hlrp_exchange_stream(self.index, self.former, &mut other) }).ok();
    }
}

/// A small CPU tensor on `device`, through pinned memory: the copy is queued behind the work of this thread, which waits for nothing.
pub fn queued_copy(tensor: &Tensor, device: Device) -> Tensor {
    if device == Device::Cpu {
        return tensor.shallow_clone();
    }
    tensor.internal_pin_memory(device).to_device_(device, tensor.kind(), true, false)
}

/// Largest buffer that copies of a snapshot share, in bytes.
const BUFFER_BYTES: i64 = 256 << 20;

/// Contiguous copies of CPU tensors, or of those of one device, in the host's memory. Those of a device go to pinned memory, all of them
/// are in flight together, and this thread waits once for the work that it has queued. Copies share buffers, whose memory is free when all of
/// them are gone.
///
/// # Errors
/// Out of memory.
pub fn snapshot<T: Borrow<Tensor>>(tensors: &[T]) -> Result<Vec<Tensor>, TorchError> {
    snapshot_in(BUFFER_BYTES, tensors)
}

fn snapshot_in<T: Borrow<Tensor>>(buffer_bytes: i64, tensors: &[T]) -> Result<Vec<Tensor>, TorchError> {
    let list = ffi::pointers(tensors);
    let mut out = vec![ptr::null_mut(); tensors.len()];
    // SAFETY: a list of live tensors that the callee does not keep, and as many slots that it fills on success.
    ffi::check("snapshot", unsafe { ffi::hlrp_snapshot(list.len(), list.as_ptr(), buffer_bytes, out.as_mut_ptr()) })?;
    Ok(out.into_iter().map(ffi::take_tensor).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;
    use tch::Kind;

    /// Also those of odd sizes, after which a wider number must be aligned; what does not fit into a buffer with others has one of its own.
    #[test]
    fn copies_of_a_snapshot_share_buffers() {
        let filled = |shape: &[i64], kind| Tensor::full(shape, 1, (kind, Device::Cpu));
        let tensors = [
            filled(&[3], Kind::Bool),
            filled(&[5], Kind::Double),
            filled(&[1], Kind::Uint8),
            filled(&[], Kind::Int64),
            filled(&[0, 3], Kind::Float),
            filled(&[100], Kind::Float),
            filled(&[2], Kind::BFloat16),
        ];
        let copies = snapshot_in(256, &tensors).unwrap();
        for (copy, tensor) in copies.iter().zip(&tensors) {
            assert_eq!((copy.size(), copy.kind(), copy), (tensor.size(), tensor.kind(), tensor));
        }
        let start = copies[0].data_ptr() as usize;
        assert_eq!([1, 2, 3].map(|index| copies[index].data_ptr() as usize - start), [64, 128, 192]);
        assert_ne!(copies[5].data_ptr() as usize, start + 256, "a buffer of its own");
        assert!(snapshot_in::<Tensor>(256, &[]).unwrap().is_empty());
    }
}
