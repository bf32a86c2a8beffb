//! The class `DatasetLabels`.

use crate::failure::Failure;
use crate::tensors;
use crate::wall::{self, compute};
use hlrp_schema::policy::{LabelVectors, TeacherIdentity};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tch::Kind;

/// The labels that `hlrp label` wrote into a dataset, by row.
///
/// Those of a teacher's codes are what `Teacher.label` returns for the same frames.
#[pyclass(frozen, module = "hlrp_rs")]
pub(crate) struct DatasetLabels {
    labels: Arc<Mutex<hlrp_vla::DatasetLabels>>,
    identity: TeacherIdentity,
    root: PathBuf,
}

#[pymethods]
impl DatasetLabels {
    /// Opens the labels whose keys begin with `prefix`. `vectors`: `code` or `continuous` (before the quantizer); those of the codes, where
    /// there are codes, when `None`. `device` is where labels are returned: `cpu`, `cuda` or `cuda:N`.
    #[staticmethod]
    #[pyo3(signature = (root, prefix="latent_labels", *, vectors=None, device="cpu"))]
    fn open(py: Python<'_>, root: PathBuf, prefix: &str, vectors: Option<&str>, device: &str) -> PyResult<Self> {
        let vectors = match vectors {
            None => None,
            Some("code") => Some(LabelVectors::Code),
            Some("continuous") => Some(LabelVectors::Continuous),
            Some(other) => {
                let text = format!("vectors: unknown value `{other}`\nhint: choose code or continuous");
                return Err(Failure::value(text).into());
            }
        };
        let refuse = |problem: hlrp_config::Problem| Failure::value(hlrp_config::with_hint(&problem));
        let device: hlrp_schema::Device = device.parse().map_err(refuse)?;
        let device = hlrp_train::select_device(device).map_err(Failure::from)?;
        compute(py, move || {
            let labels = hlrp_vla::DatasetLabels::open(&root, prefix, vectors, device)?;
            let identity = labels.identity().clone();
            Ok(Self { labels: Arc::new(Mutex::new(labels)), identity, root })
        })
    }

    /// As `Teacher.identity`: what labelled, and the shape of the labels.
    #[getter]
    fn identity<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        wall::write(py, &self.identity)
    }

    /// `Targets` of the rows `index` `int64 [B]`, LeRobot's `index` of a frame: as `Teacher.label`. A frame whose pair reaches beyond its
    /// episode is not valid.
    fn label<'py>(&self, py: Python<'py>, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
        let index_B = tensors::tensor("index", index)?;
        if index_B.kind() != Kind::Int64 || index_B.dim() != 1 {
            let text = format!("index: this is {:?} {:?} where int64 [B] is needed", index_B.kind(), index_B.size());
            return Err(Failure::value(format!("{text}\nhint: give the key index of a batch")).into());
        }
        let labels = Arc::clone(&self.labels);
        let target = compute(py, move || {
            let rows = Vec::<i64>::try_from(&index_B).map_err(|error| Failure::general(error.to_string()))?;
            // A negative row becomes one that does not exist.
            let rows: Vec<u64> = rows.into_iter().map(|row| row as u64).collect();
            Ok(labels.lock().unwrap_or_else(PoisonError::into_inner).label(&rows)?)
        })?;
        let named = [
            ("latents", target.vectors_BSD),
            ("latent_codes", target.codes_BS),
            ("latent_is_valid", Some(target.is_valid_B)),
        ];
        tensors::dict(py, named.into_iter().filter_map(|(name, tensor)| Some((name, tensor?))))
    }

    fn __repr__(&self) -> String {
        let TeacherIdentity { code_seq_len, code_dim, .. } = self.identity;
        format!("DatasetLabels({:?}, {code_seq_len} slots of {code_dim} dimensions)", self.root.display())
    }
}
