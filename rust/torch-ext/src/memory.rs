//! Memory figures.
#![allow(unsafe_code)] // each call hands a plain struct to the C++ shim

use crate::{TorchError, ffi};
use tch::Device;

/// Memory of one CUDA device as libtorch's caching allocator sees it, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CudaMemory {
    /// In live tensors.
    pub allocated: u64,
    /// Peak of `allocated`.
    pub peak_allocated: u64,
    /// Reserved from the driver.
    pub reserved: u64,
    /// Peak of `reserved`.
    pub peak_reserved: u64,
    /// Free on the device.
    pub free: u64,
    /// The device's size.
    pub total: u64,
}

/// Memory of CUDA device `index`.
///
/// # Errors
/// No such device, or CUDA is not loaded.
pub fn cuda(index: usize) -> Result<CudaMemory, TorchError> {
    let mut figures = ffi::MemoryFigures::default();
    // SAFETY: a struct of the declared layout that the callee fills.
    ffi::check("memory", unsafe { ffi::hlrp_cuda_memory(index as i64, &mut figures) })?;
    let bytes = |value: i64| u64::try_from(value).unwrap_or(0);
    Ok(CudaMemory {
        allocated: bytes(figures.allocated),
        peak_allocated: bytes(figures.peak_allocated),
        reserved: bytes(figures.reserved),
        peak_reserved: bytes(figures.peak_reserved),
        free: figures.free,
        total: figures.total,
    })
}

/// Resets the peak figures of CUDA device `index`.
///
/// # Errors
/// No such device, or CUDA is not loaded.
pub fn reset_peak(index: usize) -> Result<(), TorchError> {
    // SAFETY: a plain number.
    ffi::check("memory", unsafe { ffi::hlrp_cuda_reset_peak_memory(index as i64) })
}

/// Peak memory of training on `device` so far, in bytes: reserved memory on a GPU, the process's resident memory on the
/// CPU. `None` where the system does not report it.
pub fn peak(device: Device) -> Option<u64> {
    match device {
        Device::Cuda(index) => cuda(index).ok().map(|memory| memory.peak_reserved),
        _ => resident_peak(),
    }
}

fn resident_peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}
