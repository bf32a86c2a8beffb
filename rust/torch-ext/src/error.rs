//! Errors of libtorch.

use hlrp_config::Hint;
use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum TorchError {
    /// libtorch threw an exception.
    #[error("libtorch: {operation}: {message}")]
    Exception {
        /// What was attempted.
        operation: &'static str,
        /// libtorch's message.
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
    /// An unknown device name.
    #[error("unknown device '{0}'")]
    UnknownDevice(String),
    /// A GPU was asked for and is not available.
    #[error("device '{wanted}' is not available: {reason}")]
    NoCuda {
        /// The device as written.
        wanted: String,
        /// What is missing.
        reason: String,
        /// What to do.
        hint: &'static str,
    },
    /// `libtorch_cuda` exists and cannot be loaded.
    #[error("{path}: {message}", path = path.display())]
    LoadCuda {
        /// The library.
        path: PathBuf,
        /// The dynamic linker's message.
        message: String,
    },
}

impl Hint for TorchError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Exception { .. } | Self::Shape { .. } => None,
            Self::UnknownDevice(_) => Some("use the CPU or a CUDA device".to_owned()),
            Self::NoCuda { hint, .. } => Some((*hint).to_owned()),
            Self::LoadCuda { .. } => {
                Some("reinstall the torch wheel with its nvidia-* packages, or set device=cpu".to_owned())
            }
        }
    }
}
