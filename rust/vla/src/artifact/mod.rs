//! What a training leaves for the next stage: a folder with
//!
//! ```text
//! artifact.json            the description of the policy; size and digest of every other file
//! model.safetensors        every parameter and buffer under the model's names, float32
//! tokenizer.json           the tokenizer
//! tokenizer_config.json
//! ```
//!
//! Reading is strict: a key or tensor too few or too many is an error, as is a listed file that is missing or differs from its digest.
//! Files that are not listed (a README, say) are ignored. Artifacts of version 1 have a `manifest.json` instead and are migrated when read.

mod record;

pub use record::{ArtifactRecord, Provenance};

use crate::VlaError;
use crate::archs::VlaModel;
use crate::processor::Processor;
use hlrp_config::foreign::{MAX_TEXT_BYTES, inspect};
use hlrp_nn::read_tensors;
use hlrp_nn::smolvlm::TOKENIZER_FILES;
use hlrp_schema::PolicySpec;
use hlrp_track::fs::{DiskRules, FileDigest, OnExisting, ensure_free, publish_dir, write_atomic};
use hlrp_train::Stopped;
use record::WEIGHTS;
use std::{fs, path::Path};
use tch::{Device, Tensor};

/// Space that the small files take at most, in bytes.
const SMALL_FILES: u64 = 64 << 20;

/// A trained policy with everything that it needs to see a batch.
pub struct Artifact {
    /// What it says of itself.
    pub record: ArtifactRecord,
    /// The network.
    pub model: VlaModel,
    /// Prepares its inputs.
    pub processor: Processor,
}

/// How an artifact is written.
pub struct SaveOptions<'a> {
    /// What happens to a folder that exists.
    pub on_existing: OnExisting,
    /// What must stay free, and what becomes of a folder that is replaced.
    pub disk: &'a DiskRules,
    /// Asked between files: whether to give up.
    pub is_stopped: &'a dyn Fn() -> bool,
}

impl Artifact {
    /// Reads the artifact `dir`.
    ///
    /// # Errors
    /// Anything that is not as [`Artifact::save`] writes it; the text names the file, key or tensor.
    pub fn load(dir: &Path, device: Device) -> Result<Self, VlaError> {
        let record = ArtifactRecord::verify(dir)?;
        let PolicySpec { model, processor, .. } = &record.policy;
        let processor = Processor::new(model, processor, dir)?;
        let model = VlaModel::new(model, device)?;
        let weights = dir.join(WEIGHTS);
        let mismatch = |cause: hlrp_nn::NnError| {
            VlaError::file(
                &weights,
                cause.to_string(),
                "the weights do not belong to the model that artifact.json describes",
            )
        };
        model.store().load_strict(&read_tensors(&weights)?).map_err(mismatch)?;
        Ok(Self { record, model, processor })
    }

    /// The weights of the artifact `dir` by name, on the CPU, as its file has them.
    ///
    /// # Errors
    /// A file that is missing or not in safetensors format.
    pub fn read_weights(dir: &Path) -> Result<Vec<(String, Tensor)>, VlaError> {
        Ok(read_tensors(&dir.join(WEIGHTS))?)
    }

    /// Writes the artifact of `model` to `dir`, whole or not at all. The tokenizer is copied from `tokenizer_folder`.
    ///
    /// # Errors
    /// An incomplete or invalid description, too little space, an existing folder under [`OnExisting::Refuse`], a failed write, or
    /// [`VlaError::Stopped`]. `dir` is then unchanged.
    pub fn save(
        dir: &Path,
        options: &SaveOptions<'_>,
        model: &VlaModel,
        policy: &PolicySpec,
        provenance: &Provenance,
        tokenizer_folder: &Path,
    ) -> Result<(), VlaError> {
        policy.check_resolved()?;
        let weights = model.store().state();
        let num_bytes: usize =
            weights.iter().map(|(_, tensor)| tensor.numel() * tensor.kind().elt_size_in_bytes()).sum();
        ensure_free(dir, num_bytes as u64 + SMALL_FILES, options.disk)?;
        let unless_stopped = || if (options.is_stopped)() { Err(VlaError::Stopped(Stopped)) } else { Ok(()) };
        unless_stopped()?;
        publish_dir(dir, options.on_existing, &options.disk.superseded, |partial| {
            write_weights(&partial.join(WEIGHTS), &weights)?;
            for name in TOKENIZER_FILES {
                let source = tokenizer_folder.join(name);
                let hint = "give a folder with tokenizer.json and tokenizer_config.json";
                inspect(&source, MAX_TEXT_BYTES)
                    .and_then(|_| fs::copy(&source, partial.join(name)))
                    .map_err(|error| VlaError::file(&source, error.to_string(), hint))?;
            }
            unless_stopped()?;
            let names = [WEIGHTS].into_iter().chain(TOKENIZER_FILES);
            let files = names.map(|name| Ok((name.to_owned(), FileDigest::of(&partial.join(name))?)));
            let files = files.collect::<Result<_, VlaError>>()?;
            unless_stopped()?;
            let record = ArtifactRecord::new(policy.clone(), provenance.clone(), files);
            let path = partial.join(record::FILE);
            let text = serde_json::to_string_pretty(&record)
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
