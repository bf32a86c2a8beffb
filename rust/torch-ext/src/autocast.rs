//! Automatic mixed precision with a chosen number format.
#![allow(unsafe_code)] // each call hands a plain struct to the C++ shim

use crate::{TorchError, ffi};
use std::marker::PhantomData;
use tch::Device;

/// Number format of autocast operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutocastDtype {
    /// bfloat16.
    Bf16,
    /// float16.
    F16,
}

/// While it lives, operations of one device type in this thread run under autocast (or, inside of it, without).
///
/// Casts of weights are cached until the outermost guard goes, so a guard should span one forward pass. The backward pass
/// needs no guard.
#[must_use = "autocast ends when the guard is dropped"]
pub struct Autocast {
    device_index: i64,
    previous: ffi::AutocastState,
    not_send: PhantomData<*const ()>,
}

impl Autocast {
    /// Runs eligible operations (matrix products, convolutions) in `dtype`.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn enter(device: Device, dtype: AutocastDtype) -> Result<Self, TorchError> {
        Self::set(device, true, dtype)
    }

    /// Runs operations in the formats of their inputs, also inside an outer guard.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn disable(device: Device) -> Result<Self, TorchError> {
        Self::set(device, false, AutocastDtype::Bf16)
    }

    /// The number format in which this thread runs eligible operations of `device` now, as a number of libtorch's; none without autocast.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn current(device: Device) -> Result<Option<i8>, TorchError> {
        let mut dtype = -1;
        // SAFETY: a number that the callee sets.
        ffi::check("autocast", unsafe { ffi::hlrp_autocast_current(ffi::device_index(device)?, &mut dtype) })?;
        Ok((dtype >= 0).then_some(dtype))
    }

    fn set(device: Device, enabled: bool, dtype: AutocastDtype) -> Result<Self, TorchError> {
        let device_index = ffi::device_index(device)?;
        let mut previous = ffi::AutocastState::default();
        // SAFETY: `previous` is a struct of the declared layout that the callee fills.
        ffi::check("autocast", unsafe {
            ffi::hlrp_autocast_enter(device_index, enabled, dtype == AutocastDtype::F16, &mut previous)
        })?;
        Ok(Self { device_index, previous, not_send: PhantomData })
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        // SAFETY: `previous` came from the matching `enter` in this thread. Restoring flags has nothing to report.
        let message = unsafe { ffi::hlrp_autocast_leave(self.device_index, &self.previous) };
        debug_assert!(message.is_null());
    }
}
