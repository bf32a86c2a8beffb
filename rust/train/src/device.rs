//! From the configuration's `device` to a device of libtorch.

use hlrp_torch::TorchError;

/// The device that the configuration names, with CUDA started if it may be used.
///
/// # Errors
/// As [`hlrp_torch::select_device`].
pub fn select_device(device: hlrp_schema::Device) -> Result<tch::Device, TorchError> {
    hlrp_torch::select_device(match device {
        hlrp_schema::Device::Auto => None,
        hlrp_schema::Device::Cpu => Some(tch::Device::Cpu),
        hlrp_schema::Device::Cuda(index) => Some(tch::Device::Cuda(index)),
    })
}
