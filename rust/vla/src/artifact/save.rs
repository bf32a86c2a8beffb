//! Writes artifacts.

use super::manifest::Manifest;
use super::{Artifact, MANIFEST, Provenance, TeacherIdentity, WEIGHTS, files};
use crate::{ModelConfig, Objective, ProcessorConfig, VlaError, VlaModel};
use hlrp_nn::smolvlm::TOKENIZER_FILES;
use hlrp_track::fs::{OnExisting, ensure_free, publish_dir, write_atomic};
use std::{fs, path::Path};
use tch::{Device, Tensor};

/// Space that the small files take at most, in bytes.
const SMALL_FILES: u64 = 64 << 20;

/// What an artifact says beside its weights.
pub struct Description<'a> {
    /// Sizes of the model.
    pub model: &'a ModelConfig,
    /// How its inputs are prepared.
    pub processor: &'a ProcessorConfig,
    /// What it learned.
    pub objective: Objective,
    /// Who labelled its latent actions.
    pub teacher: Option<&'a TeacherIdentity>,
    /// Where it comes from.
    pub provenance: Provenance,
}

impl Artifact {
    /// Writes the artifact of `model` to `dir`, whole or not at all. The tokenizer is copied from `tokenizer_folder`.
    ///
    /// # Errors
    /// Parts that contradict each other, less than `min_free_gb` GiB of space that would be left, an existing folder under
    /// [`OnExisting::Refuse`], or the system's refusal.
    pub fn save(
        dir: &Path,
        on_existing: OnExisting,
        min_free_gb: f64,
        model: &VlaModel,
        description: &Description<'_>,
        tokenizer_folder: &Path,
    ) -> Result<(), VlaError> {
        let weights = model.store().state();
        let num_bytes: usize =
            weights.iter().map(|(_, tensor)| tensor.numel() * tensor.kind().elt_size_in_bytes()).sum();
        ensure_free(dir, num_bytes as u64 + SMALL_FILES, min_free_gb)?;
        publish_dir(dir, on_existing, |partial| {
            write_weights(&partial.join(WEIGHTS), &weights)?;
            for name in TOKENIZER_FILES {
                let source = tokenizer_folder.join(name);
                fs::copy(&source, partial.join(name)).map_err(|error| {
                    VlaError::file(
                        &source,
                        error.to_string(),
                        "give a folder with tokenizer.json and tokenizer_config.json",
                    )
                })?;
            }
            let names = [WEIGHTS].into_iter().chain(TOKENIZER_FILES);
            let manifest =
                Manifest {
                    format: Manifest::FORMAT.to_owned(),
                    format_version: Manifest::FORMAT_VERSION,
                    hlrp: env!("CARGO_PKG_VERSION").to_owned(),
                    model: description.model.clone(),
                    processor: description.processor.clone(),
                    objective: description.objective,
                    teacher: description.teacher.cloned(),
                    provenance: description.provenance.clone(),
                    files: names
                        .map(|name| Ok((name.to_owned(), files::record(&partial.join(name))?)))
                        .collect::<Result<_, VlaError>>()?,
                };
            let path = partial.join(MANIFEST);
            manifest.check(&path)?;
            let text = serde_json::to_string_pretty(&manifest)
                .map_err(|error| VlaError::file(&path, error.to_string(), "report this"))?;
            Ok(write_atomic(&path, text)?)
        })
    }
}

fn write_weights(path: &Path, weights: &[(String, Tensor)]) -> Result<(), VlaError> {
    let on_cpu: Vec<(&String, Tensor)> =
        weights.iter().map(|(name, tensor)| (name, tensor.detach().to_device(Device::Cpu).contiguous())).collect();
    Tensor::write_safetensors(&on_cpu, path)
        .map_err(|error| VlaError::file(path, error.to_string(), "check the space and the permissions of that folder"))
}
