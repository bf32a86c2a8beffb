//! Where a model is on this machine, and its weights as Hugging Face saves them: safetensors in one file or in shards.

use crate::NnError;
use hlrp_config::foreign::{MAX_WEIGHT_BYTES, inspect, is_plain_name, read_text};
use hlrp_schema::hub::{MAIN, RepoKind, cache_entry, cached_snapshot};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The folder of `model`: a folder itself, or the snapshot that `refs/main` of the Hugging Face cache names for a repository
/// (`organisation/name`). For a cache entry (`models--organisation--name`) it is the snapshot too.
///
/// # Errors
/// Neither exists.
pub fn locate(model: &str, hub_cache: &Path) -> Result<PathBuf, NnError> {
    let folder = Path::new(model);
    if folder.is_dir() {
        return Ok(cached_snapshot(folder, MAIN).unwrap_or_else(|| folder.to_owned()));
    }
    cached_snapshot(&cache_entry(hub_cache, RepoKind::Model, model), MAIN)
        .ok_or_else(|| NnError::NotFound { model: model.to_owned(), hub_cache: hub_cache.to_owned() })
}

/// Reads every tensor of a safetensors file.
///
/// # Errors
/// A file that is missing, truncated or of another format.
pub fn read_tensors(path: &Path) -> Result<Vec<(String, Tensor)>, NnError> {
    const HINT: &str = "the file is missing, truncated, or not in safetensors format";
    inspect(path, MAX_WEIGHT_BYTES).map_err(|cause| NnError::file(path, cause, HINT))?;
    Tensor::read_safetensors(path).map_err(|cause| NnError::file(path, cause, HINT))
}

/// The weight files of a model folder.
#[derive(Debug)]
pub struct WeightFiles {
    folder: PathBuf,
    files: Vec<PathBuf>,
}

impl WeightFiles {
    /// Lists the weight files of a folder; tensors stay on disk.
    ///
    /// # Errors
    /// No safetensors, or an index that names a missing file.
    pub fn of(folder: &Path) -> Result<Self, NnError> {
        let files = if folder.join(SINGLE).is_file() {
            vec![folder.join(SINGLE)]
        } else if folder.join(INDEX).is_file() {
            shards(folder)?
        } else {
            let hint = "download the safetensors of the model; other weight formats are not read";
            return Err(NnError::file(folder, format!("no weights: there is neither {SINGLE} nor {INDEX}"), hint));
        };
        Ok(Self { folder: folder.to_owned(), files })
    }

    /// Reads the tensors whose names `is_wanted` accepts. Those in half precision become float32; others keep their number format, so
    /// that a strict comparison refuses them.
    ///
    /// # Errors
    /// An unreadable file.
    pub fn read(&self, is_wanted: impl Fn(&str) -> bool) -> Result<Vec<(String, Tensor)>, NnError> {
        let mut tensors = Vec::new();
        for file in &self.files {
            let wanted = read_tensors(file)?.into_iter().filter(|(name, _)| is_wanted(name));
            tensors.extend(wanted.map(|(name, tensor)| (name, as_float(tensor))));
        }
        Ok(tensors)
    }

    /// Says in which folder weights do not fit.
    pub fn mismatch(&self, cause: NnError) -> NnError {
        NnError::Weights { path: self.folder.clone(), cause: Box::new(cause) }
    }
}

/// A tensor in half precision as float32, others as they are.
pub fn as_float(x: Tensor) -> Tensor {
    if matches!(x.kind(), Kind::BFloat16 | Kind::Half) { x.to_kind(Kind::Float) } else { x }
}

/// Files that the index names, each once.
fn shards(folder: &Path) -> Result<Vec<PathBuf>, NnError> {
    let path = folder.join(INDEX);
    let error =
        |problem: String| NnError::file(&path, problem, "the download is incomplete or damaged: fetch the model again");
    let text = read_text(&path).map_err(|cause| error(cause.to_string()))?;
    let index: Value = serde_json::from_str(&text).map_err(|cause| error(cause.to_string()))?;
    let map: BTreeMap<String, String> = index
        .get("weight_map")
        .and_then(|map| serde_json::from_value(map.clone()).ok())
        .ok_or_else(|| error("`weight_map` from tensor names to file names is missing".to_owned()))?;
    let names: BTreeSet<&String> = map.values().collect();
    names
        .into_iter()
        .map(|name| {
            if !is_plain_name(name) {
                return Err(error(format!("`{name}` is not a file of this folder")));
            }
            let file = folder.join(name);
            if file.is_file() { Ok(file) } else { Err(error(format!("the shard {name} is missing"))) }
        })
        .collect()
}
