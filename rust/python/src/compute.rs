//! How Rust computes for a caller in Python.

use crate::failure::Failure;
use crate::quiet::quietly;
use pyo3::prelude::*;

/// Runs `work` without the GIL on the calling thread, whose grad mode and autocast state it sees. Errors and panics become exceptions.
pub(crate) fn compute<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T, Failure> + Send) -> PyResult<T> {
    let result = py.allow_threads(|| quietly(work).unwrap_or_else(|panic| Err(Failure::panic(&panic))));
    Ok(result?)
}
