//! What libtorch executes: floating-point operations, operators, and waits of the host for a device.
#![allow(unsafe_code)] // each call hands a plain struct to the C++ shim

use crate::{TorchError, ffi};

/// What libtorch executed, in all threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperatorCounts {
    /// Floating-point operations of matrix products, convolutions and attention, two per multiplication and addition: what a model's
    /// shapes ask for, whatever a kernel computes again.
    pub flops: u64,
    /// Calls of operators, those inside of other operators included.
    pub operators: u64,
    /// Operators that make the host wait for a device: a value that the host reads, and outputs whose shape depends on values.
    pub host_waits: u64,
}

/// Counts what libtorch executes while `body` runs. One count at a time; the observed run is slower.
///
/// # Errors
/// Those of `body`, or whatever libtorch refuses.
pub fn count<R, E: From<TorchError>>(body: impl FnOnce() -> Result<R, E>) -> Result<(R, OperatorCounts), E> {
    let mut handle = 0;
    // SAFETY: a number that the callee sets.
    ffi::check("count operators", unsafe { ffi::hlrp_count_start(&mut handle) })?;
    let result = body();
    let mut counts = ffi::OperatorCounts::default();
    // SAFETY: the handle of the start above and a struct of the declared layout that the callee fills.
    ffi::check("count operators", unsafe { ffi::hlrp_count_stop(handle, &mut counts) })?;
    let number = |value: i64| u64::try_from(value).unwrap_or(0);
    let counts = OperatorCounts {
        flops: number(counts.flops),
        operators: number(counts.operators),
        host_waits: number(counts.host_waits),
    };
    Ok((result?, counts))
}
