//! Names of the predecessor's tensors.

use crate::VlaError;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tch::Tensor;

/// Brings the tensors of the file `path` to our names: `prefixes` pairs theirs with ours. `own` are the names of the model.
///
/// Copies are dropped. The predecessor's network has modules that it also reaches by another attribute, and its file has the tensors of such a
/// module twice: under a name that `prefixes` knows, or as a whole under one that only the file has.
///
/// # Errors
/// Two tensors that must be copies of each other and differ.
pub(super) fn to_own(
    path: &Path,
    found: Vec<(String, Tensor)>,
    prefixes: &[(&str, &str)],
    own: &BTreeSet<String>,
) -> Result<Vec<(String, Tensor)>, VlaError> {
    let mut named: BTreeMap<String, (String, Tensor)> = BTreeMap::new();
    let mut modules: BTreeMap<String, Vec<(String, Tensor)>> = BTreeMap::new();
    for (theirs, tensor) in found {
        let renamed =
            prefixes.iter().find_map(|(from, to)| theirs.strip_prefix(from).map(|rest| format!("{to}{rest}")));
        let name = renamed.unwrap_or_else(|| theirs.clone());
        if let Some((other, kept)) = named.get(&name) {
            refuse_other(path, (&theirs, &tensor), (other, kept))?;
        } else if own.contains(&name) {
            named.insert(name, (theirs, tensor));
        } else {
            let module = theirs.split('.').next().unwrap_or_default().to_owned();
            modules.entry(module).or_default().push((theirs, tensor));
        }
    }
    let mut unknown = Vec::new();
    for (module, tensors) in modules {
        match original(&module, &tensors, &named) {
            None => unknown.extend(tensors),
            Some(original) => {
                for (theirs, tensor) in &tensors {
                    let (other, kept) = &named[&format!("{original}{}", &theirs[module.len()..])];
                    refuse_other(path, (theirs, tensor), (other, kept))?;
                }
            }
        }
    }
    Ok(named.into_iter().map(|(name, (_, tensor))| (name, tensor)).chain(unknown).collect())
}

/// The module of which `tensors` of the module `copy` are copies: the one in `named` that has all of them, by their names within the module and their
/// values; else the only one that has all of them by their names and shapes.
fn original(copy: &str, tensors: &[(String, Tensor)], named: &BTreeMap<String, (String, Tensor)>) -> Option<String> {
    let (first, _) = tensors.first()?;
    let within = |theirs: &str| theirs[copy.len()..].to_owned();
    let suffix = within(first);
    let has_all = |module: &&str, is_same: fn(&Tensor, &Tensor) -> bool| {
        tensors.iter().all(|(theirs, tensor)| {
            named.get(&format!("{module}{}", within(theirs))).is_some_and(|(_, kept)| is_same(tensor, kept))
        })
    };
    let candidates: Vec<&str> = named
        .keys()
        .filter_map(|name| name.strip_suffix(&suffix))
        .filter(|module| !suffix.is_empty() && has_all(module, |a, b| a.size() == b.size()))
        .collect();
    let same = candidates.iter().find(|module| has_all(module, is_equal));
    let only = candidates.first().filter(|_| candidates.len() == 1);
    same.or(only).map(|module| (*module).to_owned())
}

fn is_equal(a: &Tensor, b: &Tensor) -> bool {
    a.size() == b.size() && a.kind() == b.kind() && a.equal(b)
}

/// Two tensors are copies of each other.
fn refuse_other(path: &Path, a: (&str, &Tensor), b: (&str, &Tensor)) -> Result<(), VlaError> {
    if is_equal(a.1, b.1) {
        return Ok(());
    }
    let problem = format!("{} and {} are one tensor in the predecessor's network, but differ here", a.0, b.0);
    Err(VlaError::file(path, problem, "the file was changed or is of another program: convert the artifact again"))
}
