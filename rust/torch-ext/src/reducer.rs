//! The mean of every gradient over the processes of a run, exchanged while the backward pass still computes.
#![allow(unsafe_code)] // each call hands a live handle to the C++ shim

use crate::{TorchError, World, ffi, world::Group};
use std::{ffi::c_void, ptr, sync::Arc};
use tch::Tensor;

/// Gradients are reduced in flat buckets of this size, as in torch's `DistributedDataParallel`.
pub const BUCKET_BYTES: i64 = 25 << 20;

/// Watches the gradients of a run's parameters. As soon as the gradients of a bucket are there, its sum over all processes begins; the
/// backward pass goes on meanwhile.
///
/// Nothing happens with a single process.
#[derive(Debug)]
pub struct Reducer {
    inner: Option<Inner>,
}

#[derive(Debug)]
struct Inner {
    handle: *mut c_void,
    group: Arc<Group>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: the handle is of this object alone.
        unsafe { ffi::hlrp_reducer_free(self.handle) }
    }
}

impl Reducer {
    /// Watches `parameters`, leaves that require a gradient; the same ones in the same order in every process. Each bucket has at most
    /// `bucket_bytes`, or a single parameter.
    ///
    /// # Errors
    /// A parameter that is not a leaf that requires a gradient.
    pub fn new(world: &World, parameters: &[Tensor], bucket_bytes: i64) -> Result<Self, TorchError> {
        let Some(group) = world.group.clone() else { return Ok(Self { inner: None }) };
        let (list, mut handle) = (ffi::pointers(parameters), ptr::null_mut());
        // SAFETY: a live world, which `group` keeps alive; pointers of live tensors, which the callee copies.
        ffi::check("watch gradients", unsafe {
            ffi::hlrp_reducer_open(group.handle(), list.len(), list.as_ptr(), bucket_bytes, &mut handle)
        })?;
        Ok(Self { inner: Some(Inner { handle, group }) })
    }

    /// The next backward pass is the last of a step: gradients that it adds to are complete.
    pub fn begin(&self) {
        let Some(inner) = &self.inner else { return };
        // SAFETY: a live handle.
        unsafe { ffi::hlrp_reducer_begin(inner.handle) }
    }

    /// Buckets of this step whose exchange has begun.
    pub fn num_begun(&self) -> usize {
        // SAFETY: a live handle.
        self.inner.as_ref().map_or(0, |inner| unsafe { ffi::hlrp_reducer_num_begun(inner.handle) })
    }

    /// Waits until each gradient is its mean over all processes. A parameter that has a gradient in some process has one in all afterwards;
    /// one that has none in any stays without.
    ///
    /// # Errors
    /// A process that is gone.
    pub fn finish(&self) -> Result<(), TorchError> {
        let Some(inner) = &self.inner else { return Ok(()) };
        // SAFETY: a live handle.
        inner.group.exchange("reduce gradients", || unsafe { ffi::hlrp_reducer_finish(inner.handle) })
    }
}
