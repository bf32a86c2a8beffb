//! What a GPU executed and for how long, from libtorch's profiler.
#![allow(unsafe_code)] // each call hands a plain pointer to the C++ shim

use crate::{
    TorchError,
    cuda::{self, CudaStatus},
    ffi,
};
use std::{ptr, time::Duration};

/// All executions of one kernel, or of one kind of copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelTime {
    /// Its name, as the profiler reports it.
    pub name: String,
    /// Executions.
    pub calls: u64,
    /// Time on the device, all executions together.
    pub time: Duration,
}

/// Runs `body` under the profiler; returns what the GPU executed, longest first; an empty list on a machine without a GPU. `body` must
/// synchronise with its device, or what is still queued is missing.
///
/// # Errors
/// Those of `body`, or a profiler that does not start.
pub fn profile<R, E: From<TorchError>>(body: impl FnOnce() -> Result<R, E>) -> Result<(R, Vec<KernelTime>), E> {
    if !matches!(cuda::start_up(), CudaStatus::Ready { .. }) {
        return Ok((body()?, Vec::new()));
    }
    // SAFETY: no arguments.
    ffi::check("profiler", unsafe { ffi::hlrp_profile_start() })?;
    let result = body();
    let mut text = ptr::null_mut();
    // SAFETY: `text` is set to a string on success.
    ffi::check("profiler", unsafe { ffi::hlrp_profile_stop(&mut text) })?;
    let mut kernels: Vec<KernelTime> = ffi::take_string(text).lines().filter_map(parse).collect();
    kernels.sort_by_key(|kernel| std::cmp::Reverse(kernel.time));
    Ok((result?, kernels))
}

fn parse(line: &str) -> Option<KernelTime> {
    let mut fields = line.splitn(3, '\t');
    let calls = fields.next()?.parse().ok()?;
    let time = Duration::from_nanos(fields.next()?.parse().ok()?);
    Some(KernelTime { name: fields.next()?.to_owned(), calls, time })
}
