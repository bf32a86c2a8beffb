//! What `hlrp doctor` asks.

use hlrp_torch::cuda::{CudaStatus, start_up};
use serde_json::{Value, json};

/// Versions of this program and of libtorch, and whether a GPU can be used.
pub(super) fn to_json() -> Value {
    let (num_devices, note) = match start_up() {
        CudaStatus::Ready { num_devices } => (*num_devices, None),
        CudaStatus::NoDriver => (0, Some("no NVIDIA driver".to_owned())),
        CudaStatus::NoLibrary { path } => (0, Some(format!("this libtorch has no CUDA part ({})", path.display()))),
        CudaStatus::LoadFailed { path, message } => {
            (0, Some(format!("{} cannot be loaded: {message}", path.display())))
        }
        CudaStatus::NoDevice => (0, Some("the driver shows no device".to_owned())),
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "libtorch": hlrp_torch::LIBTORCH_VERSION,
        "cuda_available": num_devices > 0,
        "num_cuda_devices": num_devices,
        "cuda_note": note,
    })
}
