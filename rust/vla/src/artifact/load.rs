//! Reads artifacts.

use super::{Manifest, WEIGHTS};
use crate::{Processor, VlaError, VlaModel};
use hlrp_nn::read_tensors;
use std::path::Path;
use tch::{Device, Tensor};

/// A trained policy with everything that it needs to see a batch.
pub struct Artifact {
    /// What it is.
    pub manifest: Manifest,
    /// The network.
    pub model: VlaModel,
    /// Prepares its inputs.
    pub processor: Processor,
}

impl Artifact {
    /// Reads the artifact `dir`.
    ///
    /// # Errors
    /// Anything that is not as [`Artifact::save`] writes it; the text names the file, key or tensor.
    pub fn load(dir: &Path, device: Device) -> Result<Self, VlaError> {
        let manifest = Manifest::verify(dir)?;
        let processor = Processor::new(&manifest.processor, dir)?;
        let model = VlaModel::new(&manifest.model, device)?;
        let weights = dir.join(WEIGHTS);
        let misfit = |cause: hlrp_nn::NnError| {
            VlaError::file(&weights, cause.to_string(), "the weights are not those of the model in manifest.json")
        };
        model.store().load_strict(&read_tensors(&weights)?).map_err(misfit)?;
        Ok(Self { manifest, model, processor })
    }

    /// The weights of the artifact `dir` by name, on the CPU, as they stand in its file.
    ///
    /// # Errors
    /// A file that is missing or no safetensors.
    pub fn read_weights(dir: &Path) -> Result<Vec<(String, Tensor)>, VlaError> {
        Ok(read_tensors(&dir.join(WEIGHTS))?)
    }
}
