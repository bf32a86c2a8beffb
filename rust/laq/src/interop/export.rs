//! The encoder and the quantizer of a checkpoint alone: what labels need of it.

use crate::error::LaqError;
use crate::inference::LaqInference;
use crate::model::Parts;
use anyhow::Context;
use hlrp_config::foreign::{is_plain_name, read_text};
use hlrp_nn::read_tensors;
use hlrp_schema::{LaqDescription, TaskDescription, laq_encoder};
use hlrp_track::console;
use hlrp_track::fs::{FileDigest, OnExisting, Superseded, publish_dir, write_json};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::{Device, Tensor};

/// File of the weights.
const WEIGHTS: &str = "model.safetensors";
/// Version of the format that this crate writes. Version 1 has no digests.
const FORMAT_VERSION: u64 = 2;

/// `config.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// [`laq_encoder::FORMAT`].
    format: String,
    /// [`FORMAT_VERSION`].
    format_version: u64,
    /// Digest of the checkpoint's file with the weights that it exports.
    weights_sha256_of_checkpoint: Option<String>,
    /// The [`LaqDescription`] of the checkpoint.
    description: Value,
    /// Size and digest of every other file.
    #[serde(default)]
    files: BTreeMap<String, FileDigest>,
}

/// Publishes what labels need of the checkpoint `path` as the new folder `out`: `model.safetensors` without decoders, and
/// `config.json` with the model's description. Every command that labels reads the folder like the checkpoint ([`LaqInference::load`]).
///
/// # Errors
/// A folder that is not a complete checkpoint of stage 1, or an `out` that exists or cannot be written.
pub fn export(path: &Path, out: &Path) -> anyhow::Result<()> {
    let laq = LaqInference::load(path, Parts::Encoder, Device::Cpu)?;
    let state = laq.model().store().state();
    let tensors: Vec<(&str, Tensor)> =
        state.iter().map(|(name, tensor)| (name.as_str(), tensor.detach().contiguous())).collect();
    let description = serde_json::to_value(laq.description())?;
    publish_dir::<anyhow::Error>(out, OnExisting::Refuse, &Superseded::Removed, |partial| {
        let file = partial.join(WEIGHTS);
        Tensor::write_safetensors(&tensors, &file).with_context(|| format!("cannot write {}", file.display()))?;
        let record = Record {
            format: laq_encoder::FORMAT.to_owned(),
            format_version: FORMAT_VERSION,
            weights_sha256_of_checkpoint: laq.weights_sha256().map(str::to_owned),
            description,
            files: [(WEIGHTS.to_owned(), FileDigest::of(&file)?)].into(),
        };
        Ok(write_json(&partial.join(laq_encoder::DESCRIPTION), &record)?)
    })?;
    let num: usize = tensors.iter().map(|(_, tensor)| tensor.numel()).sum();
    console::print(&format!("{}: encoder and quantizer, {num} numbers in {} tensors", out.display(), tensors.len()));
    Ok(())
}

/// A folder that [`export`] wrote, whole.
pub(crate) struct ExportedEncoder {
    folder: PathBuf,
    /// Digest of the weights of the checkpoint that it was made of.
    pub(crate) weights_sha256: Option<String>,
    /// The whole model, decoders included, and its frame pairs.
    pub(crate) description: LaqDescription,
}

impl ExportedEncoder {
    /// Opens the folder `path` and compares its files with their digests; none where it is another kind of folder.
    ///
    /// # Errors
    /// A folder of this kind that is damaged, or of a newer format version.
    pub(crate) fn find(path: &Path) -> Result<Option<Self>, LaqError> {
        let refuse = |problem: String| LaqError::Checkpoint { path: path.to_path_buf(), problem };
        let in_record = |cause: String| refuse(format!("{}: {cause}", laq_encoder::DESCRIPTION));
        let Ok(text) = read_text(&path.join(laq_encoder::DESCRIPTION)) else { return Ok(None) };
        let Ok(value) = serde_json::from_str::<Value>(&text) else { return Ok(None) };
        if value["format"] != laq_encoder::FORMAT {
            return Ok(None);
        }
        match value["format_version"].as_u64() {
            Some(1..=FORMAT_VERSION) => {}
            Some(found) => {
                let problem = format!("format {found}, this program reads format {FORMAT_VERSION} and older");
                return Err(in_record(problem));
            }
            None => return Err(in_record("it has no format_version".to_owned())),
        }
        let mut record: Record = serde_json::from_value(value).map_err(|cause| in_record(cause.to_string()))?;
        if record.format_version > 1 && !record.files.contains_key(WEIGHTS) {
            return Err(in_record(format!("it does not list {WEIGHTS}")));
        }
        for (name, digest) in &record.files {
            if !is_plain_name(name) {
                return Err(in_record(format!("files: `{name}` is not the name of a file in this folder")));
            }
            let difference = digest.difference(&path.join(name)).map_err(|cause| refuse(cause.to_string()))?;
            if let Some(difference) = difference {
                return Err(refuse(format!("it is damaged: {name}: {difference}")));
            }
        }
        record.description["stage"] = "laq".into();
        match TaskDescription::read(record.description, false, None) {
            Ok(TaskDescription::Laq(description)) => {
                let weights_sha256 = record.weights_sha256_of_checkpoint;
                Ok(Some(Self { folder: path.to_path_buf(), weights_sha256, description }))
            }
            Ok(other) => Err(in_record(format!("it describes stage {}, not laq", other.stage().name()))),
            Err(cause) => Err(in_record(format!("description: {cause}"))),
        }
    }

    /// All tensors but those of decoders.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(crate) fn weights(&self) -> Result<Vec<(String, Tensor)>, LaqError> {
        Ok(read_tensors(&self.folder.join(WEIGHTS))?)
    }
}
