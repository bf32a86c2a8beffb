//! From the configuration's `device` to a device.

use crate::{
    TorchError,
    cuda::{self, CudaStatus},
};
use tch::Device;

/// Accepts `auto` (the first GPU, else the CPU), `cpu`, `cuda` (the first GPU) and `cuda:N`, and starts CUDA if it may be used.
///
/// # Errors
/// An unknown name, or a GPU that was asked for by name and is not available.
pub fn select_device(wanted: &str) -> Result<Device, TorchError> {
    match wanted {
        "cpu" => Ok(Device::Cpu),
        "auto" => match cuda::start_up() {
            CudaStatus::Ready { .. } => Ok(Device::Cuda(0)),
            // A GPU machine whose libtorch does not load must not train on the CPU unnoticed.
            CudaStatus::LoadFailed { path, message } => {
                Err(TorchError::LoadCuda { path: path.clone(), message: message.clone() })
            }
            CudaStatus::NoDriver | CudaStatus::NoLibrary { .. } | CudaStatus::NoDevice => Ok(Device::Cpu),
        },
        "cuda" => gpu(wanted, 0),
        _ => {
            let index = wanted.strip_prefix("cuda:").and_then(|index| index.parse().ok());
            gpu(wanted, index.ok_or_else(|| TorchError::UnknownDevice(wanted.to_owned()))?)
        }
    }
}

fn gpu(wanted: &str, index: usize) -> Result<Device, TorchError> {
    let missing = |reason: String, hint: &'static str| TorchError::NoCuda { wanted: wanted.to_owned(), reason, hint };
    match cuda::start_up() {
        CudaStatus::Ready { num_devices } if index < *num_devices => Ok(Device::Cuda(index)),
        CudaStatus::Ready { num_devices } => {
            Err(missing(format!("this machine has {num_devices} GPU(s), numbered from 0"), "lower the number"))
        }
        CudaStatus::NoDriver => Err(missing(
            "this machine has no NVIDIA driver (libcuda.so.1)".to_owned(),
            "set device=cpu, or run where nvidia-smi works",
        )),
        CudaStatus::NoLibrary { path } => Err(missing(
            format!("this libtorch has no CUDA support ({} is missing)", path.display()),
            "install the CUDA build of torch, or set device=cpu",
        )),
        CudaStatus::LoadFailed { path, message } => {
            Err(TorchError::LoadCuda { path: path.clone(), message: message.clone() })
        }
        CudaStatus::NoDevice => {
            Err(missing("no GPU is visible to this process".to_owned(), "check CUDA_VISIBLE_DEVICES and nvidia-smi"))
        }
    }
}
