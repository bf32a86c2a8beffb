//! The part of libtorch that the tch bindings lack; the only unsafe and C++ code.
//!
//! Every function here is safe: a C++ exception becomes a [`TorchError`]. The C++ side is in `cpp/` and is compiled against
//! the headers of the libtorch that `tch` links. CUDA is reached through libtorch's device-neutral interfaces, so that one
//! program serves machines with and without a GPU; [`cuda::start_up`] loads it.

mod adamw;
#[allow(unsafe_code)] // the trait of allocators is unsafe
mod allocator;
mod autocast;
pub mod count;
pub mod cuda;
mod device;
mod ending;
mod error;
#[allow(unsafe_code)] // the declarations of the C++ shim and the conversions at its edge
mod ffi;
mod foreach;
mod graph;
mod machine;
mod meeting;
pub mod memory;
mod notices;
pub mod profile;
mod reducer;
pub mod rng;
mod storage;
mod transfer;
mod weights;
mod world;

pub use adamw::{AdamWStep, fused_adamw};
pub use allocator::Allocator;
pub use autocast::{Autocast, AutocastDtype};
pub use device::select_device;
pub use ending::{Note, Verdict};
pub use error::{TorchError, is_out_of_memory};
pub use foreach::{clear_grads, lerp, mul_by_scalar, norm, set_grads};
pub use graph::CudaGraph;
pub use machine::{linger, speaks_for_machine};
pub use meeting::{Meeting, Store};
pub use reducer::{BUCKET_BYTES, Reducer};
pub use storage::{BlobElement, tensor_from_vec};
pub use transfer::{HostToDevice, queued_copy, snapshot};
pub use weights::{describe, load_strict};
pub use world::{World, named};

/// Version of the libtorch that this crate is written for.
pub const LIBTORCH_VERSION: &str = "2.11.0";
