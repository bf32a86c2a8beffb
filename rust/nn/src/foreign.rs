//! Weights in another program's layout, read into a model: `hlrp import-laq`, `hlrp import-vla`.

use crate::hub::as_float;
use crate::{NnError, Store, load_strict, read_tensors};
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Kind, Tensor};

/// Tensors that one message names.
const MAX_NAMED: usize = 8;
/// What files of PyTorch end in.
const PYTORCH: [&str; 4] = ["ckpt", "pt", "pth", "bin"];

/// Reads the tensors of a safetensors file that another program's file was converted to. Those in half precision become float32.
///
/// # Errors
/// A file of PyTorch, or one that cannot be read.
pub fn read_converted(path: &Path) -> Result<Vec<(String, Tensor)>, NnError> {
    if path.extension().is_some_and(|extension| PYTORCH.iter().any(|other| extension == *other)) {
        return Err(NnError::NotSafetensors { path: path.to_path_buf() });
    }
    Ok(read_tensors(path)?.into_iter().map(|(name, tensor)| (name, as_float(tensor))).collect())
}

/// Overwrites the tensors of `store` with those of the same names in `found`, which were read from `path`. Those whose names `may_lack`
/// accepts keep their values where none of them was found; their names are returned.
///
/// # Errors
/// A tensor that is missing, not of this model, or of another shape or number format: the text names them all, nothing is written then.
pub fn load_converted(
    path: &Path,
    store: &Store,
    found: &[(String, Tensor)],
    may_lack: impl Fn(&str) -> bool,
) -> Result<Vec<String>, NnError> {
    let found_any = found.iter().any(|(name, _)| may_lack(name));
    let (lacking, wanted): (Vec<_>, Vec<_>) =
        store.state().into_iter().partition(|(name, _)| !found_any && may_lack(name));
    let differences = differences(&wanted, found);
    if !differences.is_empty() {
        return Err(NnError::Layout { path: path.to_path_buf(), differences });
    }
    load_strict(&wanted, found)?;
    Ok(lacking.into_iter().map(|(name, _)| name).collect())
}

/// Shapes and number formats by name.
type Forms = BTreeMap<String, (Vec<i64>, Kind)>;

fn form(tensor: &Tensor) -> (Vec<i64>, Kind) {
    (tensor.size(), tensor.kind())
}

/// How the tensors that a model needs differ from those that were found.
fn differences(wanted: &[(String, Tensor)], found: &[(String, Tensor)]) -> Vec<String> {
    let by_name =
        |tensors: &[(String, Tensor)]| tensors.iter().map(|(name, tensor)| (name.clone(), form(tensor))).collect();
    let (wanted, found): (Forms, Forms) = (by_name(wanted), by_name(found));
    let lacking =
        |a: &Forms, b: &Forms| -> Vec<String> { a.keys().filter(|name| !b.contains_key(*name)).cloned().collect() };
    let reshaped = wanted.iter().filter_map(|(name, form)| {
        let other = found.get(name).filter(|other| *other != form)?;
        Some(if other.0 == form.0 {
            format!("{name} ({:?}, the model has {:?})", other.1, form.1)
        } else {
            format!("{name} ({:?}, the model has {:?})", other.0, form.0)
        })
    });
    let groups = [
        ("missing", lacking(&wanted, &found)),
        ("not of this model", lacking(&found, &wanted)),
        ("of another shape or number format", reshaped.collect()),
    ];
    let named = |(what, names): (&str, Vec<String>)| {
        let more =
            if names.len() > MAX_NAMED { format!(" and {} more", names.len() - MAX_NAMED) } else { String::new() };
        let shown = names[..MAX_NAMED.min(names.len())].join(", ");
        (!names.is_empty()).then(|| format!("{what}: {shown}{more}"))
    };
    groups.into_iter().filter_map(named).collect()
}
