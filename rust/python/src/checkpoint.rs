//! The class `Checkpoint`.

use crate::failure::Failure;
use crate::tensors;
use crate::wall::{self, compute};
use hlrp_train::checkpoint::{Checkpoint as Opened, Manifest, find};
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

    /// `checkpoint.json`: `step`, `score`, `precision`, `task` (what the model is), `files`, …
    #[getter]
    fn manifest<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        wall::write(py, self.opened.manifest())
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
        tensors::dict(py, compute(py, || Ok(self.opened.weights()?))?)
    }

    fn __repr__(&self) -> String {
        format!("Checkpoint({:?})", self.path())
    }
}

/// What a checkpoint folder, or the newest checkpoint of a run directory, says of its task: `stage`, and for stage 1 `model`, `pair`, `camera` and
/// `preprocess`, for stage 2 the policy. Its files are not read; loading it compares them with their digests.
#[pyfunction]
pub(crate) fn checkpoint_task<'py>(py: Python<'py>, path: PathBuf) -> PyResult<Bound<'py, PyAny>> {
    let manifest = find(&path).and_then(|dir| Manifest::read(&dir)).map_err(Failure::from)?;
    wall::write(py, &manifest.task)
}
