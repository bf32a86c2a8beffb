//! CUDA start-up and device facts.
//!
//! The linker drops `libtorch_cuda` from programs that name none of its symbols, so it is loaded explicitly, before anything asks
//! libtorch whether there is a GPU (libtorch remembers the first answer).
#![allow(unsafe_code)] // each call hands a string or a number to the C++ shim

use crate::{TorchError, ffi};
use std::{
    ffi::{CString, c_char},
    path::PathBuf,
    ptr,
    sync::OnceLock,
};
use tch::Device;

/// What [`start_up`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CudaStatus {
    /// CUDA works.
    Ready {
        /// Devices that libtorch sees.
        num_devices: usize,
    },
    /// The machine has no NVIDIA driver.
    NoDriver,
    /// This libtorch was built without CUDA.
    NoLibrary {
        /// Where `libtorch_cuda.so` would be.
        path: PathBuf,
    },
    /// `libtorch_cuda.so` exists and cannot be loaded.
    LoadFailed {
        /// The library.
        path: PathBuf,
        /// The dynamic linker's message.
        message: String,
    },
    /// Driver and library exist, but no device is visible.
    NoDevice,
}

/// Loads `libtorch_cuda` where a driver is present. Call it before any other use of CUDA; later calls return the first answer.
pub fn start_up() -> &'static CudaStatus {
    static STATUS: OnceLock<CudaStatus> = OnceLock::new();
    STATUS.get_or_init(|| {
        // SAFETY: no arguments.
        if !unsafe { ffi::hlrp_cuda_driver_present() } {
            return CudaStatus::NoDriver;
        }
        let path = libtorch_folder().map(|folder| folder.join("libtorch_cuda.so")).unwrap_or_default();
        if !path.is_file() {
            return CudaStatus::NoLibrary { path };
        }
        if let Err(error) = load_library(&path) {
            return CudaStatus::LoadFailed { path, message: error.to_string() };
        }
        // SAFETY: no arguments; libtorch_cuda is loaded.
        match usize::try_from(unsafe { ffi::hlrp_cuda_device_count() }) {
            Ok(num_devices) if num_devices > 0 => CudaStatus::Ready { num_devices },
            _ => CudaStatus::NoDevice,
        }
    })
}

/// Folder of the libtorch in use.
///
/// # Errors
/// The dynamic linker does not know.
pub fn libtorch_folder() -> Result<PathBuf, TorchError> {
    let mut out = ptr::null_mut();
    // SAFETY: `out` is set to a string on success.
    ffi::check("libtorch_folder", unsafe { ffi::hlrp_libtorch_folder(&mut out) })?;
    Ok(PathBuf::from(ffi::take_string(out)))
}

/// Marketing name of CUDA device `index`, such as `NVIDIA H100 80GB HBM3`.
///
/// # Errors
/// No such device.
pub fn device_name(index: usize) -> Result<String, TorchError> {
    let mut buffer = [0u8; 256];
    // SAFETY: the buffer has the size that is named; one byte stays NUL.
    let message = unsafe { ffi::hlrp_cuda_device_name(index as i64, buffer.as_mut_ptr().cast::<c_char>(), 255) };
    ffi::check("device_name", message)?;
    let end = buffer.iter().position(|&byte| byte == 0).unwrap_or(buffer.len());
    Ok(String::from_utf8_lossy(&buffer[..end]).into_owned())
}

/// Unique identifier of CUDA device `index`, 32 hexadecimal digits: the same in every process that sees this GPU, under whatever index.
///
/// # Errors
/// No such device.
pub fn device_uuid(index: usize) -> Result<String, TorchError> {
    let mut bytes = [0u8; 16];
    // SAFETY: the driver writes 16 bytes.
    ffi::check("device_uuid", unsafe { ffi::hlrp_cuda_device_uuid(index as i64, bytes.as_mut_ptr()) })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Whether matrix products and convolutions of float32 tensors may round their inputs to TF32 (10 bits of mantissa) on a GPU. By default
/// libtorch allows it for convolutions only.
///
/// # Errors
/// Whatever libtorch refuses.
pub fn allow_tf32(allowed: bool) -> Result<(), TorchError> {
    // SAFETY: a plain flag.
    ffi::check("allow TF32", unsafe { ffi::hlrp_allow_tf32(allowed) })
}

/// Waits until everything that was queued on `device` is done; nothing to do on the CPU.
///
/// # Errors
/// A kernel failed.
pub fn synchronize(device: Device) -> Result<(), TorchError> {
    match ffi::device_index(device)? {
        -1 => Ok(()),
        // SAFETY: a plain number.
        index => ffi::check("synchronize", unsafe { ffi::hlrp_cuda_synchronize(index) }),
    }
}

fn load_library(path: &std::path::Path) -> Result<(), TorchError> {
    let failed = |message: String| TorchError::LoadCuda { path: path.to_owned(), message };
    let name = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|error| failed(error.to_string()))?;
    // SAFETY: a NUL-terminated path.
    let message = unsafe { ffi::hlrp_load_library(name.as_ptr()) };
    if message.is_null() { Ok(()) } else { Err(failed(ffi::take_string(message))) }
}

/// Dense bf16 rate of a GPU in floating-point operations per second, from NVIDIA's datasheets; none for a name that holds no known one.
pub fn peak_flops(device_name: &str) -> Option<f64> {
    let rows = include_str!("peak_flops.tsv").lines().filter_map(|row| row.split_once('\t'));
    rows.filter(|(name, _)| device_name.contains(name)).find_map(|(_, rate)| rate.parse().ok())
}
