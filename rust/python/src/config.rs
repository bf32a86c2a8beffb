//! The configuration tree.

use crate::failure::Failure;
use crate::wall;
use pyo3::prelude::*;
use std::path::PathBuf;

/// Name of the tree's primary file.
const PRIMARY: &str = "config";

/// The configuration that the tree in `config_dir` gives for `overrides` such as `experiment=vla_tiny` or `seed=7`, resolved.
#[pyfunction]
pub(crate) fn compose_config<'py>(
    py: Python<'py>,
    overrides: Vec<String>,
    config_dir: PathBuf,
) -> PyResult<Bound<'py, PyAny>> {
    let refuse = |error: hlrp_config::Problem| Failure::value(error.to_string());
    let composed = hlrp_config::compose(&hlrp_schema::PROJECT, &config_dir, PRIMARY, &overrides).map_err(refuse)?;
    wall::write(py, &composed.tree().to_json())
}
