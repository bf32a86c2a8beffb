//! Strict reading of weight files.

use crate::NnError;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tch::{Tensor, no_grad};

/// Reads every tensor of a safetensors file.
///
/// # Errors
/// A file that is missing, truncated or of another format.
pub fn read_tensors(path: &Path) -> Result<Vec<(String, Tensor)>, NnError> {
    Tensor::read_safetensors(path).map_err(|source| NnError::File { path: path.to_owned(), source })
}

/// Overwrites each tensor of `target` with the one of the same name in `source`.
///
/// # Errors
/// A name that only one side has, or another shape or number format; nothing is written then.
pub fn load_strict(target: &[(String, Tensor)], source: &[(String, Tensor)]) -> Result<(), NnError> {
    let by_name: BTreeMap<&str, &Tensor> = source.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let wanted: BTreeSet<&str> = target.iter().map(|(name, _)| name.as_str()).collect();
    let missing: Vec<String> =
        wanted.iter().filter(|name| !by_name.contains_key(*name)).map(ToString::to_string).collect();
    let unknown: Vec<String> = by_name.keys().filter(|name| !wanted.contains(*name)).map(ToString::to_string).collect();
    if !missing.is_empty() || !unknown.is_empty() {
        return Err(NnError::Names { missing, unknown });
    }
    for (name, tensor) in target {
        let (expected, found) = (describe(tensor), describe(by_name[name.as_str()]));
        if expected != found {
            return Err(NnError::Tensor { name: name.clone(), expected, found });
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
pub(crate) fn describe(tensor: &Tensor) -> String {
    format!("{:?} {:?}", tensor.kind(), tensor.size())
}
