//! States of libtorch's default random generators.
#![allow(unsafe_code)] // each call hands a borrowed tensor to the C++ shim

use crate::{TorchError, ffi};
use std::ptr;
use tch::{Device, Kind, Tensor};

/// Seeds the default generator of the CPU and of `device`.
///
/// # Errors
/// Whatever libtorch refuses.
pub fn seed(device: Device, seed: u64) -> Result<(), TorchError> {
    for index in generators(device)? {
        // SAFETY: plain numbers.
        ffi::check("rng::seed", unsafe { ffi::hlrp_rng_seed(index, seed) })?;
    }
    Ok(())
}

/// State of the default generator of one device, as opaque bytes.
///
/// # Errors
/// Whatever libtorch refuses.
pub fn state(device: Device) -> Result<Vec<u8>, TorchError> {
    let mut out = ptr::null_mut();
    // SAFETY: `out` is set on success.
    ffi::check("rng::state", unsafe { ffi::hlrp_rng_get_state(ffi::device_index(device)?, &mut out) })?;
    let tensor = ffi::take_tensor(out);
    let mut bytes = vec![0; tensor.numel()];
    tensor
        .f_copy_data_u8(&mut bytes, tensor.numel())
        .map_err(|error| TorchError::Exception { operation: "rng::state", message: error.to_string() })?;
    Ok(bytes)
}

/// Puts a state from [`state`] back.
///
/// # Errors
/// Bytes that are not such a state.
pub fn set_state(device: Device, state: &[u8]) -> Result<(), TorchError> {
    let tensor = Tensor::from_data_size(state, &[state.len() as i64], Kind::Uint8);
    // SAFETY: a live tensor that the callee copies from.
    ffi::check("rng::set_state", unsafe { ffi::hlrp_rng_set_state(ffi::device_index(device)?, tensor.as_ptr()) })
}

/// What `draw` returns with the CPU's default generator at `seed`; the generator's state is afterwards what it was.
///
/// # Errors
/// Whatever libtorch refuses.
pub fn seeded<T>(seed: u64, draw: impl FnOnce() -> T) -> Result<T, TorchError> {
    let before = state(Device::Cpu)?;
    self::seed(Device::Cpu, seed)?;
    let drawn = draw();
    set_state(Device::Cpu, &before)?;
    Ok(drawn)
}

fn generators(device: Device) -> Result<Vec<i64>, TorchError> {
    let index = ffi::device_index(device)?;
    Ok(if index < 0 { vec![-1] } else { vec![-1, index] })
}
