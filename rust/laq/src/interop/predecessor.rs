//! Names of the predecessor's tensors.

use hlrp_nn::NnError;
use hlrp_torch::TorchError;
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// Names of one tensor list that another list has twice.
const ALIASES: [&str; 3] = ["decoder_context_projection.", "encoder_projection.", "dino_encoder.feature_extractor."];
/// Parts of which the decoders have copies of their own.
const COPIES: [(&str, &str); 3] = [
    ("spatial_rel_pos_bias.", "aux_rel_pos_bias."),
    ("pixel_projection.", "aux_context_projection."),
    ("pixel_projection.", "decoder_context_projection."),
];
/// The frozen backbone: transformers 5 calls its blocks `model.layer.N` in memory.
const BACKBONE: &str = "dino_feature_extractor.";
/// Constants of the backbone, and a tensor that it never reads.
const BACKBONE_CONSTANTS: [&str; 3] = ["dino_feature_extractor.mean", "dino_feature_extractor.std", "mask_token"];

/// Brings the state dict of a Lightning checkpoint (with or without its prefix `model.`) to the names of a
/// [`LaqModel`](crate::LaqModel), of which `target` is the state.
///
/// Tensors without information are dropped: aliases, zero shifts (`beta`), empty `null_kv`, and the context norm of self-attention, which
/// no computation reads. The aux decoder's own position bias and canvas start as copies of the shared ones; usage counters start at 0.
///
/// # Errors
/// A shift that is not zero, which this model cannot represent.
pub fn from_lightning_names(
    state: Vec<(String, Tensor)>,
    target: &[(String, Tensor)],
) -> Result<Vec<(String, Tensor)>, NnError> {
    let mut named = BTreeMap::new();
    for (name, tensor) in state {
        let name = name.strip_prefix("model.").unwrap_or(&name).to_owned();
        if name.ends_with(".beta") && tensor.abs().sum(Kind::Double).double_value(&[]) != 0.0 {
            return Err(TorchError::Weight { name, expected: "all zero".into(), found: "a shift".into() }.into());
        }
        let name = match name.strip_prefix(BACKBONE) {
            Some(rest) => format!("{BACKBONE}{}", rest.replacen("model.model.", "model.", 1)),
            None => name,
        };
        named.insert(name, tensor);
    }
    named.retain(|name, tensor| !is_redundant(name, tensor));
    for (name, start) in target.iter().filter(|(name, _)| !named.contains_key(name)).collect::<Vec<_>>() {
        let shared = COPIES.iter().find_map(|(from, to)| name.strip_prefix(to).map(|rest| format!("{from}{rest}")));
        if let Some(tensor) = shared.and_then(|name| named.get(&name)) {
            let copy = tensor.copy();
            named.insert(name.clone(), copy);
        } else if start.kind() == Kind::Int64 || name.ends_with("recent_use") {
            named.insert(name.clone(), start.zeros_like());
        }
    }
    // Of the shared patches only the copies are in use where the encoder's tokens are features.
    let is_copied = |name: &str| name.starts_with("pixel_projection.") && !target.iter().any(|(own, _)| own == name);
    named.retain(|name, _| !is_copied(name));
    Ok(named.into_iter().collect())
}

fn is_redundant(name: &str, tensor: &Tensor) -> bool {
    let is_alias = ALIASES.iter().any(|alias| name.starts_with(alias));
    let is_self_attention = name.split('.').rev().nth(2).is_some_and(|part| part == "1");
    is_alias
        || BACKBONE_CONSTANTS.iter().any(|constant| name.ends_with(constant))
        || name.ends_with(".beta")
        || tensor.numel() == 0
        || (is_self_attention && name.ends_with("context_norm.gamma"))
}
