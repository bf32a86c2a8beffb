//! A model folder: `config.json` and safetensors, in one file or in shards.

use super::{SmolVlmConfig, SmolVlmError};
use crate::{NnError, Scope, load_strict, read_tensors};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const LM_HEAD: &str = "lm_head.weight";

/// A model folder whose configuration was read and whose weight files exist.
#[derive(Debug)]
pub struct SmolVlmFolder {
    path: PathBuf,
    config: SmolVlmConfig,
    files: Vec<PathBuf>,
}

impl SmolVlmFolder {
    /// Reads the configuration and lists the weight files; tensors stay on disk.
    ///
    /// # Errors
    /// No `config.json`, a model of another kind, no safetensors, an index that names an absent file.
    pub fn open(path: &Path) -> Result<Self, SmolVlmError> {
        Ok(Self { path: path.to_owned(), config: SmolVlmConfig::from_folder(path)?, files: weight_files(path)? })
    }

    /// Sizes of the whole model in the folder.
    pub fn config(&self) -> &SmolVlmConfig {
        &self.config
    }

    /// Overwrites the backbone that was built below `scope` with the folder's weights, as float32.
    ///
    /// Text layers above those that `config` keeps and a language-model head that the backbone does not have are skipped; every
    /// other name must be on both sides.
    ///
    /// # Errors
    /// An unreadable file, a missing or unknown tensor, another shape; the backbone is then unchanged.
    pub fn load_into(&self, scope: &Scope<'_>, config: &SmolVlmConfig) -> Result<(), SmolVlmError> {
        let target = scope.state();
        let keeps_head = target.iter().any(|(name, _)| name == LM_HEAD);
        let dropped_layers: BTreeSet<i64> =
            (config.text.num_hidden_layers..self.config.text.num_hidden_layers).collect();
        let is_skipped = |name: &str| {
            (name == LM_HEAD && !keeps_head) || text_layer(name).is_some_and(|layer| dropped_layers.contains(&layer))
        };

        let mut source = Vec::new();
        for file in &self.files {
            let tensors = read_tensors(file).map_err(|cause| self.weights_error(cause))?;
            source
                .extend(tensors.into_iter().filter(|(name, _)| !is_skipped(name)).map(|(name, x)| (name, as_float(x))));
        }
        load_strict(&target, &source).map_err(|cause| self.weights_error(cause))
    }

    fn weights_error(&self, cause: NnError) -> SmolVlmError {
        SmolVlmError::Weights { path: self.path.clone(), cause }
    }
}

/// Half-precision tensors as float32; others stay, so that a strict comparison refuses them.
fn as_float(x: Tensor) -> Tensor {
    if matches!(x.kind(), Kind::BFloat16 | Kind::Half) { x.to_kind(Kind::Float) } else { x }
}

/// 7 for `model.text_model.layers.7.mlp.up_proj.weight`.
fn text_layer(name: &str) -> Option<i64> {
    name.strip_prefix("model.text_model.layers.")?.split('.').next()?.parse().ok()
}

fn weight_files(folder: &Path) -> Result<Vec<PathBuf>, SmolVlmError> {
    if folder.join(SINGLE).is_file() {
        return Ok(vec![folder.join(SINGLE)]);
    }
    if folder.join(INDEX).is_file() {
        return shards(folder);
    }
    Err(SmolVlmError::File {
        path: folder.to_owned(),
        problem: format!("no weights: there is neither {SINGLE} nor {INDEX}"),
        hint: "download the safetensors of the model; other weight formats are not read",
    })
}

/// Files that the index names, each once.
fn shards(folder: &Path) -> Result<Vec<PathBuf>, SmolVlmError> {
    let path = folder.join(INDEX);
    let error = |problem: String| SmolVlmError::File {
        path: path.clone(),
        problem,
        hint: "the download is incomplete or damaged: fetch the model again",
    };
    let text = std::fs::read_to_string(&path).map_err(|cause| error(cause.to_string()))?;
    let index: Value = serde_json::from_str(&text).map_err(|cause| error(cause.to_string()))?;
    let map: BTreeMap<String, String> = index
        .get("weight_map")
        .and_then(|map| serde_json::from_value(map.clone()).ok())
        .ok_or_else(|| error("`weight_map` from tensor names to file names is missing".to_owned()))?;
    let names: BTreeSet<&String> = map.values().collect();
    names
        .into_iter()
        .map(|name| {
            if Path::new(name).file_name() != Some(name.as_ref()) {
                return Err(error(format!("`{name}` is not a file of this folder")));
            }
            let file = folder.join(name);
            if file.is_file() { Ok(file) } else { Err(error(format!("the shard {name} is missing"))) }
        })
        .collect()
}
