//! A LeRobot SmolVLA checkpoint as initialisation.

use super::LATENT_HEAD;
use crate::VlaError;
use hlrp_nn::hub::as_float;
use hlrp_nn::{Store, load_strict, read_tensors};
use std::path::Path;
use tch::Tensor;

/// Name of the weight file in a checkpoint folder.
const WEIGHTS: &str = "model.safetensors";
/// Older checkpoints keep normalisation statistics among the weights.
const STATISTICS: [&str; 3] = ["normalize_inputs.", "normalize_targets.", "unnormalize_outputs."];

/// What an initialisation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initialised {
    /// Tensors that were loaded.
    pub num_loaded: usize,
    /// Parameters that the checkpoint does not have: they keep their fresh values.
    pub fresh: Vec<String>,
    /// Tensors of the checkpoint that are not weights of this network: statistics of older versions, and a latent head that it lacks.
    pub ignored: Vec<String>,
}

/// Takes over the weights of a policy. The latent head, which LeRobot lacks, stays as it is when the checkpoint has none; that of a checkpoint
/// is left out where the model has none.
///
/// # Errors
/// A file that cannot be read, a missing or unknown tensor, or one of another shape; the model is then unchanged.
pub(super) fn init(store: &Store, checkpoint: &Path) -> Result<Initialised, VlaError> {
    let path = if checkpoint.is_dir() { checkpoint.join(WEIGHTS) } else { checkpoint.to_owned() };
    if !path.is_file() {
        let hint = "give the folder of a LeRobot smolvla policy (it holds config.json and model.safetensors)";
        return Err(VlaError::file(path, "the file is missing", hint));
    }
    let state = store.state();
    let is_latent = |name: &str| name.starts_with(LATENT_HEAD);
    let model_has_latent_head = state.iter().any(|(name, _)| is_latent(name));
    let is_ignored = |name: &str| {
        STATISTICS.iter().any(|prefix| name.starts_with(prefix)) || (is_latent(name) && !model_has_latent_head)
    };
    let (ignored, weights): (Vec<_>, Vec<_>) = read_tensors(&path)?.into_iter().partition(|(name, _)| is_ignored(name));
    let weights: Vec<(String, Tensor)> = weights.into_iter().map(|(name, tensor)| (name, as_float(tensor))).collect();
    let has_latent_head = weights.iter().any(|(name, _)| is_latent(name));
    let (fresh, wanted): (Vec<_>, Vec<_>) =
        state.into_iter().partition(|(name, _)| !has_latent_head && is_latent(name));
    load_strict(&wanted, &weights)?;
    let names = |tensors: Vec<(String, Tensor)>| tensors.into_iter().map(|(name, _)| name).collect();
    Ok(Initialised { num_loaded: wanted.len(), fresh: names(fresh), ignored: names(ignored) })
}
