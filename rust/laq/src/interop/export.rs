//! The encoder and the quantizer of a checkpoint alone.

use crate::inference::LaqInference;
use crate::model::Parts;
use anyhow::Context;
use hlrp_track::console;
use hlrp_track::fs::{OnExisting, Superseded, publish_dir};
use serde_json::json;
use std::fs;
use std::path::Path;
use tch::{Device, Tensor};

/// Publishes what labels need of the checkpoint `path` as the new folder `out`: `model.safetensors` without decoders, and
/// `config.json` with the model's description.
///
/// # Errors
/// A folder that is not a complete checkpoint of stage 1, or an `out` that exists or cannot be written.
pub fn export(path: &Path, out: &Path) -> anyhow::Result<()> {
    let laq = LaqInference::load(path, Parts::Encoder, Device::Cpu)?;
    let state = laq.model().store().state();
    let tensors: Vec<(&str, Tensor)> =
        state.iter().map(|(name, tensor)| (name.as_str(), tensor.detach().contiguous())).collect();
    let config = json!({
        "format": "hlrp-laq-encoder",
        "format_version": 1,
        "weights_sha256_of_checkpoint": laq.weights_sha256(),
        "description": laq.description(),
    });
    publish_dir(out, OnExisting::Refuse, &Superseded::Removed, |partial| {
        let file = partial.join("model.safetensors");
        Tensor::write_safetensors(&tensors, &file).with_context(|| format!("cannot write {}", file.display()))?;
        let file = partial.join("config.json");
        fs::write(&file, format!("{config:#}\n")).with_context(|| format!("cannot write {}", file.display()))
    })?;
    let num: usize = tensors.iter().map(|(_, tensor)| tensor.numel()).sum();
    console::print(&format!("{}: encoder and quantizer, {num} numbers in {} tensors", out.display(), tensors.len()));
    Ok(())
}
