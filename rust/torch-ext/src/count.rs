//! What libtorch executes: floating-point operations, bytes, operators, and waits of the host for a device.
#![allow(unsafe_code)] // each call hands a plain struct to the C++ shim

use crate::{TorchError, ffi};
use std::{
    cell::Cell,
    sync::{Mutex, PoisonError},
};

/// What libtorch executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperatorCounts {
    /// Floating-point operations of matrix products, convolutions and attention, two per multiplication and addition: what a model's
    /// shapes ask for, whatever a kernel computes again.
    pub flops: u64,
    /// Bytes that operators read and write: their inputs and results, each once. Views move none; what a kernel reads again from a cache or
    /// from memory is not known.
    pub bytes: u64,
    /// Calls of operators, those inside of other operators included.
    pub operators: u64,
    /// Operators that make the host wait for a device, or would if their tensors were there: a value that the host reads, a tensor that it
    /// asks for in main memory, and outputs whose shape depends on values.
    pub host_waits: u64,
}

thread_local! {
    /// Whether this thread counts already.
    static IS_COUNTING: Cell<bool> = const { Cell::new(false) };
}

/// Counts what libtorch executes for this thread while `body` runs, the backward passes that it starts included. Threads take turns; within
/// `body` parts of it may be counted. What is observed is slower.
///
/// # Errors
/// Those of `body`, or whatever libtorch refuses.
pub fn count<R, E: From<TorchError>>(body: impl FnOnce() -> Result<R, E>) -> Result<(R, OperatorCounts), E> {
    static TURN: Mutex<()> = Mutex::new(());
    if IS_COUNTING.get() {
        let before = so_far();
        let result = body()?;
        return Ok((result, so_far().since(before)));
    }
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut handle = 0;
    // SAFETY: a number that the callee sets.
    ffi::check("count operators", unsafe { ffi::hlrp_count_start(&mut handle) })?;
    IS_COUNTING.set(true);
    let result = body();
    IS_COUNTING.set(false);
    // SAFETY: the handle of the start above.
    ffi::check("count operators", unsafe { ffi::hlrp_count_stop(handle) })?;
    Ok((result?, so_far()))
}

/// Since the start of the count that runs, or of the last one.
fn so_far() -> OperatorCounts {
    let mut counts = ffi::OperatorCounts::default();
    // SAFETY: a struct of the declared layout that the callee fills.
    unsafe { ffi::hlrp_count_read(&mut counts) };
    let number = |value: i64| u64::try_from(value).unwrap_or(0);
    OperatorCounts {
        flops: number(counts.flops),
        bytes: number(counts.bytes),
        operators: number(counts.operators),
        host_waits: number(counts.host_waits),
    }
}

impl OperatorCounts {
    fn since(self, before: Self) -> Self {
        Self {
            flops: self.flops - before.flops,
            bytes: self.bytes - before.bytes,
            operators: self.operators - before.operators,
            host_waits: self.host_waits - before.host_waits,
        }
    }
}
