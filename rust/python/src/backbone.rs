//! Backbones in folders.

use crate::description;
use crate::failure::Failure;
use hlrp_nn::hub::locate;
use hlrp_nn::smolvlm::SmolVlmConfig;
use pyo3::prelude::*;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The folder of a model: `model` itself if it is a folder, else its snapshot in a Hugging Face cache. Downloads nothing.
#[pyfunction]
pub(crate) fn locate_model(model: &str, hub_cache: PathBuf) -> PyResult<String> {
    Ok(locate(model, &hub_cache).map_err(Failure::from)?.display().to_string())
}

/// The key `backbone` of a model's description, read from the `config.json` of a SmolVLM folder; weights need not be there.
#[pyfunction]
#[pyo3(signature = (folder, *, num_text_layers=None))]
pub(crate) fn backbone_description<'py>(
    py: Python<'py>,
    folder: PathBuf,
    num_text_layers: Option<i64>,
) -> PyResult<Bound<'py, PyAny>> {
    description::write(py, &read(&folder, num_text_layers)?)
}

fn read(folder: &Path, num_text_layers: Option<i64>) -> Result<SmolVlmConfig, Failure> {
    let config = SmolVlmConfig::from_folder(folder)?;
    Ok(match num_text_layers {
        Some(num_layers) => config.with_text_layers(num_layers)?,
        None => config,
    })
}

/// Completes the description of a model with the backbone of `folder`.
///
/// # Errors
/// A description that is no object or has a backbone already, or a folder without a readable `config.json`.
pub(crate) fn insert_backbone(model: Value, folder: &Path, num_text_layers: Option<i64>) -> Result<Value, Failure> {
    let Value::Object(mut model) = model else {
        return Err(Failure::value("model: it is no mapping\nhint: give the description without its key `backbone`"));
    };
    let backbone =
        serde_json::to_value(read(folder, num_text_layers)?).map_err(|error| Failure::general(error.to_string()))?;
    match model.insert("backbone".to_owned(), backbone) {
        None => Ok(Value::Object(model)),
        Some(_) => Err(Failure::value(
            "model: it has a `backbone` already\nhint: leave the key out, or use Policy(model, processor, tokenizer_folder)",
        )),
    }
}
