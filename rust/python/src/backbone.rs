//! Backbones in folders.

use crate::failure::Failure;
use crate::wall;
use hlrp_nn::hub::locate;
use hlrp_nn::smolvlm::read_sizes;
use hlrp_schema::policy::ModelSpec;
use pyo3::prelude::*;
use std::path::{Path, PathBuf};

/// The folder of a model: `model` itself if it is a folder, else its snapshot in a Hugging Face cache. Downloads nothing.
#[pyfunction]
pub(crate) fn locate_model(model: &str, hub_cache: PathBuf) -> PyResult<String> {
    Ok(locate(model, &hub_cache).map_err(Failure::from)?.display().to_string())
}

/// The sizes of a SmolVLM: `model["backbone"]["sizes"]` of a description. Read from the folder's `config.json`; weights need not be there.
#[pyfunction]
pub(crate) fn backbone_sizes<'py>(py: Python<'py>, folder: PathBuf) -> PyResult<Bound<'py, PyAny>> {
    let sizes = read_sizes(&folder).map_err(Failure::from)?;
    wall::write(py, &sizes)
}

/// Fills what the description of a model leaves to its backbone.
///
/// # Errors
/// A folder without a readable `config.json` or tokenizer, or a description that contradicts them.
pub(crate) fn resolve(model: &mut ModelSpec, folder: &Path, tokenizer_folder: &Path) -> Result<(), Failure> {
    let facts = hlrp_vla::backbone_facts(Some(read_sizes(folder)?), tokenizer_folder)?;
    Ok(model.resolve_backbone(&facts).map_err(|problem| problem.inside("model"))?)
}
