//! The class `Artifact`.

use crate::compute::compute;
use crate::policy::Policy;
use crate::{description, tensors};
use hlrp_nn::Store;
use hlrp_vla::{Manifest, VlaModel};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::path::PathBuf;

/// What stage 2 leaves behind: `manifest.json`, `model.safetensors` and the tokenizer.
#[pyclass(frozen, module = "hlrp_rs")]
pub(crate) struct Artifact {
    path: PathBuf,
    manifest: Manifest,
}

#[pymethods]
impl Artifact {
    /// Reads and checks an artifact: every file against its digest, the parts against each other, the weights against the model.
    ///
    /// Strict both ways: a key, file or tensor too few or too many is an error.
    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        compute(py, move || {
            let manifest = Manifest::verify(&path)?;
            let weights = hlrp_vla::Artifact::read_weights(&path)?;
            VlaModel::over(&manifest.model, Store::over(weights.into_iter().collect()))?;
            Ok(Self { path, manifest })
        })
    }

    /// The folder.
    #[getter]
    fn path(&self) -> String {
        self.path.display().to_string()
    }

    /// `manifest.json`: `model`, `processor`, `objective`, `teacher`, `provenance`, `files`, …
    #[getter]
    fn manifest<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        description::write(py, &self.manifest)
    }

    /// Where the tokenizer lies: the artifact's own folder.
    #[getter]
    fn tokenizer_folder(&self) -> String {
        self.path()
    }

    /// Every parameter by name: `float32` on the CPU, without gradient. Read anew at each call.
    fn tensors<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let path = self.path.clone();
        tensors::dict(py, compute(py, move || Ok(hlrp_vla::Artifact::read_weights(&path)?))?)
    }

    /// The policy that these weights are for.
    fn policy(&self, py: Python<'_>) -> PyResult<Policy> {
        Policy::build(py, self.manifest.model.clone(), &self.manifest.processor, self.path.clone())
    }

    fn __repr__(&self) -> String {
        format!("Artifact({:?})", self.path())
    }
}
