//! From the configuration's `device` and `precision` to libtorch's.

use crate::error::Result;
use hlrp_schema::Precision;
use hlrp_torch::{Autocast, AutocastDtype, TorchError};
use tch::Device;

/// The device that the configuration names, with CUDA started if it may be used.
///
/// # Errors
/// As [`hlrp_torch::select_device`].
pub fn select_device(device: hlrp_schema::Device) -> Result<Device, TorchError> {
    hlrp_torch::select_device(match device {
        hlrp_schema::Device::Auto => None,
        hlrp_schema::Device::Cpu => Some(Device::Cpu),
        hlrp_schema::Device::Cuda(index) => Some(Device::Cuda(index)),
    })
}

/// While the guard lives, forward passes run in `precision`; float32 needs no guard.
///
/// # Errors
/// Whatever libtorch refuses.
pub fn autocast(precision: Precision, device: Device) -> Result<Option<Autocast>> {
    Ok(match precision {
        Precision::Bf16Mixed => Some(Autocast::enter(device, AutocastDtype::Bf16)?),
        Precision::Float32 => None,
    })
}
