//! The class `Artifact`.

use crate::policy::Policy;
use crate::tensors;
use crate::wall::{self, compute};
use hlrp_nn::Store;
use hlrp_vla::{ArtifactRecord, VlaModel};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::path::PathBuf;

/// What stage 2 writes for stage 3: `artifact.json`, `model.safetensors` and the tokenizer.
#[pyclass(frozen, module = "hlrp_rs")]
pub(crate) struct Artifact {
    path: PathBuf,
    record: ArtifactRecord,
}

#[pymethods]
impl Artifact {
    /// Reads and checks an artifact: every file against its digest, the parts against each other, the weights against the model.
    ///
    /// Strict both ways: a key, file or tensor too few or too many is an error.
    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        compute(py, move || {
            let record = ArtifactRecord::verify(&path)?;
            let weights = hlrp_vla::Artifact::read_weights(&path)?;
            VlaModel::over(&record.policy.model, Store::over(weights.into_iter().collect()))?;
            Ok(Self { path, record })
        })
    }

    /// The folder.
    #[getter]
    fn path(&self) -> String {
        self.path.display().to_string()
    }

    /// `artifact.json`: `policy` (`model`, `processor`, `objective`, `teacher`), `provenance`, `files`, …; of older versions, migrated.
    #[getter]
    fn manifest<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        wall::write(py, &self.record)
    }

    /// Identity of the latent action model that labelled for the policy; `None` for a policy that learned real actions only.
    #[getter]
    fn teacher<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.record.policy.teacher.identity().map(|identity| wall::write(py, &identity)).transpose()
    }

    /// Folder of the tokenizer: the artifact's own.
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
        let hlrp_schema::PolicySpec { model, processor, .. } = &self.record.policy;
        Policy::build(py, model.clone(), processor, self.path.clone())
    }

    fn __repr__(&self) -> String {
        format!("Artifact({:?})", self.path())
    }
}
