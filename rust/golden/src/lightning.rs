//! Weights under the names of a PyTorch Lightning checkpoint of this model.

use hlrp_nn::NnError;
use hlrp_torch::TorchError;
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// Names of one tensor list that another list has twice.
const ALIASES: [&str; 2] = ["decoder_context_projection.", "encoder_projection."];
/// Parts of which the aux decoder has a copy of its own.
const AUX_COPIES: [(&str, &str); 2] =
    [("spatial_rel_pos_bias.", "aux_rel_pos_bias."), ("pixel_projection.", "aux_context_projection.")];

/// Brings the state dict of a Lightning checkpoint (with or without its prefix `model.`) to the names of a
/// [`LaqModel`](hlrp_laq::LaqModel), of which `target` is the state.
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
        named.insert(name, tensor);
    }
    named.retain(|name, tensor| !is_redundant(name, tensor));
    for (name, start) in target.iter().filter(|(name, _)| !named.contains_key(name)).collect::<Vec<_>>() {
        let shared = AUX_COPIES.iter().find_map(|(from, to)| name.strip_prefix(to).map(|rest| format!("{from}{rest}")));
        if let Some(tensor) = shared.and_then(|name| named.get(&name)) {
            let copy = tensor.copy();
            named.insert(name.clone(), copy);
        } else if start.kind() == Kind::Int64 || name.ends_with("recent_use") {
            named.insert(name.clone(), start.zeros_like());
        }
    }
    Ok(named.into_iter().collect())
}

fn is_redundant(name: &str, tensor: &Tensor) -> bool {
    let is_alias = ALIASES.iter().any(|alias| name.starts_with(alias));
    let is_self_attention = name.split('.').rev().nth(2).is_some_and(|part| part == "1");
    is_alias
        || name.ends_with(".beta")
        || tensor.numel() == 0
        || (is_self_attention && name.ends_with("context_norm.gamma"))
}
