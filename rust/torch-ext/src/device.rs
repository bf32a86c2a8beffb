//! The device that is asked for.

use crate::{
    TorchError,
    cuda::{self, CudaStatus},
};
use tch::Device;

/// The device that is asked for, with CUDA started if it may be used; the first GPU, else the CPU, when `wanted` is none.
///
/// # Errors
/// A GPU that was asked for and is not available, or a libtorch whose CUDA part does not load.
pub fn select_device(wanted: Option<Device>) -> Result<Device, TorchError> {
    match wanted {
        Some(Device::Cuda(index)) => gpu(index),
        Some(device) => Ok(device),
        None => match cuda::start_up() {
            CudaStatus::Ready { .. } => Ok(Device::Cuda(0)),
            // A GPU machine whose libtorch does not load must not train on the CPU unnoticed.
            CudaStatus::LoadFailed { path, message } => {
                Err(TorchError::LoadCuda { path: path.clone(), message: message.clone() })
            }
            CudaStatus::NoDriver | CudaStatus::NoLibrary { .. } | CudaStatus::NoDevice => Ok(Device::Cpu),
        },
    }
}

fn gpu(index: usize) -> Result<Device, TorchError> {
    let missing =
        |reason: String, hint: &'static str| TorchError::NoCuda { wanted: format!("cuda:{index}"), reason, hint };
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
