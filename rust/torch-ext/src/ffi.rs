//! Declarations of the C++ shim, and the conversions at its edge.

use crate::TorchError;
use std::{
    borrow::Borrow,
    ffi::{CStr, c_char, c_int, c_void},
};
use tch::{Device, Tensor};
use torch_sys::C_tensor;

pub(crate) type Message = *mut c_char;
pub(crate) type TensorsIn = *const *const C_tensor;

#[repr(C)]
#[derive(Default, Clone, Copy)]
pub(crate) struct AutocastState {
    pub(crate) enabled: bool,
    pub(crate) dtype: i8,
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
pub(crate) struct MemoryFigures {
    pub(crate) allocated: i64,
    pub(crate) peak_allocated: i64,
    pub(crate) reserved: i64,
    pub(crate) peak_reserved: i64,
    pub(crate) free: u64,
    pub(crate) total: u64,
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
pub(crate) struct OperatorCounts {
    pub(crate) flops: i64,
    pub(crate) bytes: i64,
    pub(crate) operators: i64,
    pub(crate) host_waits: i64,
}

unsafe extern "C" {
    fn hlrp_free_message(message: Message);
    #[allow(clippy::too_many_arguments)] // mirrors the kernel's own list
    pub(crate) fn hlrp_fused_adamw(
        count: usize,
        params: TensorsIn,
        grads: TensorsIn,
        exp_avgs: TensorsIn,
        exp_avg_sqs: TensorsIn,
        steps: TensorsIn,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
    ) -> Message;
    pub(crate) fn hlrp_foreach_norm(count: usize, tensors: TensorsIn, out: *mut *mut C_tensor) -> Message;
    pub(crate) fn hlrp_foreach_mul(count: usize, tensors: TensorsIn, factor: *const C_tensor) -> Message;
    pub(crate) fn hlrp_foreach_lerp(count: usize, tensors: TensorsIn, ends: TensorsIn, weight: f64) -> Message;
    pub(crate) fn hlrp_set_grads(count: usize, tensors: TensorsIn, grads: TensorsIn) -> Message;
    pub(crate) fn hlrp_clear_grads(count: usize, tensors: TensorsIn) -> Message;
    pub(crate) fn hlrp_rng_get_state(device_index: i64, out: *mut *mut C_tensor) -> Message;
    pub(crate) fn hlrp_rng_set_state(device_index: i64, state: *const C_tensor) -> Message;
    pub(crate) fn hlrp_rng_seed(device_index: i64, seed: u64) -> Message;
    pub(crate) fn hlrp_autocast_enter(
        device_index: i64,
        enabled: bool,
        half: bool,
        previous: *mut AutocastState,
    ) -> Message;
    pub(crate) fn hlrp_autocast_current(device_index: i64, dtype: *mut i8) -> Message;
    pub(crate) fn hlrp_autocast_leave(device_index: i64, previous: *const AutocastState) -> Message;
    pub(crate) fn hlrp_tensor_over(
        data: *mut c_void,
        sizes: *const i64,
        dim: usize,
        kind: c_int,
        drop: unsafe extern "C" fn(*mut c_void),
        context: *mut c_void,
        out: *mut *mut C_tensor,
    ) -> Message;
    pub(crate) fn hlrp_cuda_memory(device_index: i64, out: *mut MemoryFigures) -> Message;
    pub(crate) fn hlrp_cuda_reset_peak_memory(device_index: i64) -> Message;
    pub(crate) fn hlrp_libtorch_folder(out: *mut *mut c_char) -> Message;
    pub(crate) fn hlrp_cuda_driver_present() -> bool;
    pub(crate) fn hlrp_load_library(path: *const c_char) -> Message;
    pub(crate) fn hlrp_cuda_device_count() -> i64;
    pub(crate) fn hlrp_cuda_device_name(device_index: i64, out: *mut c_char, capacity: c_int) -> Message;
    pub(crate) fn hlrp_cuda_device_uuid(device_index: i64, out: *mut u8) -> Message;
    pub(crate) fn hlrp_cuda_synchronize(device_index: i64) -> Message;
    pub(crate) fn hlrp_allow_tf32(allowed: bool) -> Message;
    pub(crate) fn hlrp_count_start(handle: *mut u64) -> Message;
    pub(crate) fn hlrp_count_stop(handle: u64) -> Message;
    pub(crate) fn hlrp_count_read(out: *mut OperatorCounts);
    pub(crate) fn hlrp_profile_start() -> Message;
    pub(crate) fn hlrp_profile_stop(out: *mut *mut c_char) -> Message;
    pub(crate) fn hlrp_graph_begin(device_index: i64, out: *mut *mut c_void) -> Message;
    pub(crate) fn hlrp_graph_end(graph: *mut c_void) -> Message;
    pub(crate) fn hlrp_graph_replay(graph: *mut c_void) -> Message;
    pub(crate) fn hlrp_graph_free(graph: *mut c_void);
    pub(crate) fn hlrp_copy_stream(device_index: i64, stream_id: *mut i64) -> Message;
    pub(crate) fn hlrp_copy_to_cuda(
        count: usize,
        tensors: TensorsIn,
        device_index: i64,
        out: *mut *mut C_tensor,
    ) -> Message;
    pub(crate) fn hlrp_hand_over(count: usize, tensors: TensorsIn, device_index: i64) -> Message;
    pub(crate) fn hlrp_exchange_stream(device_index: i64, stream_id: i64, former: *mut i64) -> Message;
    pub(crate) fn hlrp_snapshot(
        count: usize,
        tensors: TensorsIn,
        buffer_bytes: i64,
        out: *mut *mut C_tensor,
    ) -> Message;
    pub(crate) fn hlrp_world_quiet();
    #[allow(clippy::too_many_arguments)] // mirrors what a store needs
    pub(crate) fn hlrp_world_open(
        file: *const c_char,
        host: *const c_char,
        port: u16,
        is_server: bool,
        prefix: *const c_char,
        rank: c_int,
        size: c_int,
        timeout_ms: i64,
        out: *mut *mut c_void,
    ) -> Message;
    pub(crate) fn hlrp_world_set(world: *mut c_void, key: *const c_char, value: *const c_char) -> Message;
    pub(crate) fn hlrp_world_get(world: *mut c_void, key: *const c_char, out: *mut *mut c_char) -> Message;
    pub(crate) fn hlrp_world_listen(world: *mut c_void, interface: *const c_char, address: *const c_char) -> Message;
    pub(crate) fn hlrp_world_connect(world: *mut c_void) -> Message;
    pub(crate) fn hlrp_world_check(world: *mut c_void) -> Message;
    pub(crate) fn hlrp_world_connect_gpus(world: *mut c_void) -> Message;
    pub(crate) fn hlrp_world_disconnect(world: *mut c_void);
    pub(crate) fn hlrp_world_free(world: *mut c_void);
    pub(crate) fn hlrp_world_all_reduce(world: *mut c_void, tensor: *const C_tensor) -> Message;
    pub(crate) fn hlrp_world_broadcast(world: *mut c_void, tensor: *const C_tensor) -> Message;
    pub(crate) fn hlrp_world_all_gather(
        world: *mut c_void,
        tensor: *const C_tensor,
        out: *mut *mut C_tensor,
    ) -> Message;
    pub(crate) fn hlrp_reducer_open(
        world: *mut c_void,
        count: usize,
        params: TensorsIn,
        bucket_bytes: i64,
        out: *mut *mut c_void,
    ) -> Message;
    pub(crate) fn hlrp_reducer_begin(reducer: *mut c_void);
    pub(crate) fn hlrp_reducer_num_begun(reducer: *mut c_void) -> usize;
    pub(crate) fn hlrp_reducer_finish(reducer: *mut c_void) -> Message;
    pub(crate) fn hlrp_reducer_free(reducer: *mut c_void);
}

/// Takes a string that C++ allocated with `malloc`.
pub(crate) fn take_string(text: *mut c_char) -> String {
    // SAFETY: the shim hands out NUL-terminated strings from strdup and gives up their ownership.
    unsafe {
        let owned = CStr::from_ptr(text).to_string_lossy().into_owned();
        hlrp_free_message(text);
        owned
    }
}

/// Turns the shim's answer into a `Result`.
pub(crate) fn check(operation: &'static str, message: Message) -> Result<(), TorchError> {
    if message.is_null() {
        return Ok(());
    }
    Err(TorchError::Exception { operation, message: take_string(message) })
}

/// Takes a tensor that C++ allocated.
pub(crate) fn take_tensor(tensor: *mut C_tensor) -> Tensor {
    // SAFETY: the shim stores an `at::Tensor` from `new` there whenever it reports success, and gives up its ownership.
    unsafe { Tensor::from_ptr(tensor) }
}

/// Borrowed pointers of a list of tensors; they live as long as the list does.
pub(crate) fn pointers<T: Borrow<Tensor>>(tensors: &[T]) -> Vec<*const C_tensor> {
    tensors.iter().map(|tensor| tensor.borrow().as_ptr()).collect()
}

/// The shim's number of a device: -1 is the CPU.
pub(crate) fn device_index(device: Device) -> Result<i64, TorchError> {
    match device {
        Device::Cpu => Ok(-1),
        Device::Cuda(index) => Ok(index as i64),
        other => Err(TorchError::UnknownDevice(format!("{other:?}"))),
    }
}
