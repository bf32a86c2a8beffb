//! DINOv3 vision transformers ([Siméoni et al. 2025](https://arxiv.org/abs/2508.10104)) as transformers saves them.

mod hf_config;
mod model;

pub use hf_config::{FOLDER_HINT, read_sizes};
pub use model::Dinov3;

use crate::NnError;
use crate::hub::WeightFiles;
use std::path::Path;
use tch::Tensor;

/// The one tensor of a published checkpoint that no forward pass reads.
const UNUSED: &str = "embeddings.mask_token";

/// The weights in a model folder, under the names of [`Dinov3`]. Blocks are called `layer.N` in files and `model.layer.N`
/// in memory; both are read.
///
/// # Errors
/// A folder without safetensors, or an unreadable file.
pub fn read_weights(folder: &Path) -> Result<Vec<(String, Tensor)>, NnError> {
    let tensors = WeightFiles::of(folder)?.read(|name| name != UNUSED)?;
    Ok(tensors.into_iter().map(|(name, tensor)| (own_name(&name).to_owned(), tensor)).collect())
}

/// The name that a tensor of transformers has in [`Dinov3`].
pub fn own_name(name: &str) -> &str {
    name.strip_prefix("model.").unwrap_or(name)
}
