//! What libtorch can refuse.

use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum TorchError {
    /// libtorch threw an exception.
    #[error("libtorch: {operation}: {message}")]
    Exception {
        /// What was attempted.
        operation: &'static str,
        /// libtorch's own words.
        message: String,
    },
    /// Lists that belong together have different lengths, or a buffer does not match its shape.
    #[error("{operation}: {message}")]
    Shape {
        /// What was attempted.
        operation: &'static str,
        /// What does not match.
        message: String,
    },
    /// A device name that cannot be understood.
    #[error("device: '{0}' is not a device\nhint: use auto, cpu, cuda or cuda:N")]
    UnknownDevice(String),
    /// A GPU was asked for and cannot be had.
    #[error("device: '{wanted}' was asked for, but {reason}\nhint: {hint}")]
    NoCuda {
        /// The device as written.
        wanted: String,
        /// What is missing.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// `libtorch_cuda` is there and cannot be loaded.
    #[error("{path}: {message}\nhint: reinstall the torch wheel with its nvidia-* packages, or set device=cpu", path = path.display())]
    LoadCuda {
        /// The library.
        path: PathBuf,
        /// The dynamic linker's own words.
        message: String,
    },
}
