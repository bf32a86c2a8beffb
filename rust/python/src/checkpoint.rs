//! The class `Checkpoint`.

use crate::compute::compute;
use crate::{description, tensors};
use hlrp_train::checkpoint::{Checkpoint as Opened, read_weights};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::path::PathBuf;

/// A checkpoint of stage 1 or 2.
#[pyclass(frozen, module = "hlrp_rs")]
pub(crate) struct Checkpoint {
    opened: Opened,
    config_yaml: String,
}

#[pymethods]
impl Checkpoint {
    /// Opens a checkpoint folder, or the newest one of a run directory, and compares every file with its digest.
    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        compute(py, move || {
            let opened = Opened::open(&path)?;
            let config_yaml = opened.config_yaml()?;
            Ok(Self { opened, config_yaml })
        })
    }

    /// The checkpoint's folder.
    #[getter]
    fn path(&self) -> String {
        self.opened.dir().display().to_string()
    }

    /// `manifest.json`: `step`, `score`, `precision`, `task` (what the model is), `files`, …
    #[getter]
    fn manifest<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        description::write(py, self.opened.manifest())
    }

    /// Optimizer steps done.
    #[getter]
    fn step(&self) -> u64 {
        self.opened.manifest().step
    }

    /// The run's resolved configuration.
    #[getter]
    fn config_yaml(&self) -> &str {
        &self.config_yaml
    }

    /// The weights that it exports: parameters, averaged where it keeps averages, and buffers; on the CPU, read anew at each call.
    fn tensors<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let path = self.opened.dir().to_owned();
        tensors::dict(py, compute(py, move || Ok(read_weights(&path)?))?)
    }

    fn __repr__(&self) -> String {
        format!("Checkpoint({:?})", self.path())
    }
}
