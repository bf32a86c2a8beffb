//! Weights from elsewhere, taken strictly: by name, shape and number format.

use crate::TorchError;
use std::collections::{BTreeMap, BTreeSet};
use tch::{Tensor, no_grad};

/// Overwrites each tensor of `target` with the one of the same name in `source`.
///
/// # Errors
/// A name that only one side has, or another shape or number format; nothing is written then.
pub fn load_strict(target: &[(String, Tensor)], source: &[(String, Tensor)]) -> Result<(), TorchError> {
    let by_name: BTreeMap<&str, &Tensor> = source.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let wanted: BTreeSet<&str> = target.iter().map(|(name, _)| name.as_str()).collect();
    let missing: Vec<String> =
        wanted.iter().filter(|name| !by_name.contains_key(*name)).map(ToString::to_string).collect();
    let unknown: Vec<String> = by_name.keys().filter(|name| !wanted.contains(*name)).map(ToString::to_string).collect();
    if !missing.is_empty() || !unknown.is_empty() {
        return Err(TorchError::WeightNames { missing, unknown });
    }
    for (name, tensor) in target {
        let (expected, found) = (describe(tensor), describe(by_name[name.as_str()]));
        if expected != found {
            return Err(TorchError::Weight { name: name.clone(), expected, found });
        }
    }
    no_grad(|| {
        for (name, tensor) in target {
            tensor.shallow_clone().copy_(by_name[name.as_str()]);
        }
    });
    Ok(())
}

/// Number format and shape, for an error text.
pub fn describe(tensor: &Tensor) -> String {
    format!("{:?} {:?}", tensor.kind(), tensor.size())
}
