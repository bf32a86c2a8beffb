//! The configuration tree as it was when a run was submitted. A job composes from this copy, so that an edit does not reach jobs that wait.

use crate::error::{Result, SubmitError};
use hlrp_config::{Problem, read_yaml, secret::redact_value};
use hlrp_track::fs::{OnExisting, Superseded, publish_dir};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// What to do with a secret of the configuration.
pub const SECRET_HINT: &str =
    "export it and refer to it as ${oc.env:NAME}, or leave it in ~/.netrc or the token file of Hugging Face";

/// Where the copy is.
pub fn folder(submit_dir: &Path) -> PathBuf {
    submit_dir.join("config")
}

/// Refuses a tree that cannot be copied, because a file of it contains a secret.
///
/// # Errors
/// The first such file; a file that cannot be read.
pub fn check(tree: &Path) -> Result<()> {
    for path in files(tree)? {
        let values = read_yaml(&read(&path)?, &path)?;
        if let Some(key) = secret_in(&values, "") {
            let path = path.display();
            let message = format!("{path} contains a secret ({key}), which must not be copied into a run directory");
            return Err(Problem::new("submit", message, SECRET_HINT).into());
        }
    }
    Ok(())
}

/// Copies the YAML files of a tree.
///
/// # Errors
/// A file cannot be read or written.
pub fn write(tree: &Path, submit_dir: &Path) -> Result<()> {
    let target = folder(submit_dir);
    if target.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(submit_dir).map_err(SubmitError::io("create", submit_dir))?;
    let superseded = Superseded::KeptIn(submit_dir.to_path_buf());
    publish_dir(&target, OnExisting::Refuse, &superseded, |partial: &Path| {
        for path in files(tree)? {
            let copy = partial.join(path.strip_prefix(tree).unwrap_or(&path));
            let folder = copy.parent().unwrap_or(partial);
            fs::create_dir_all(folder).map_err(SubmitError::io("create", folder))?;
            fs::write(&copy, read(&path)?).map_err(SubmitError::io("write", &copy))?;
        }
        Ok(())
    })
}

/// The key of the first value that is a secret, not a reference to one.
fn secret_in(value: &Value, key: &str) -> Option<String> {
    let join = |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
    match value {
        Value::Object(map) => map.iter().find_map(|(name, value)| secret_in(value, &join(name))),
        Value::Array(items) => items.iter().find_map(|item| secret_in(item, key)),
        Value::String(text) => {
            let is_reference = text.starts_with("${") || text == "???";
            (!is_reference && redact_value(key, text) != *text).then(|| key.to_owned())
        }
        _ => None,
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(SubmitError::io("read", path))
}

/// The YAML files of a tree, hidden folders left out.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(SubmitError::io("list", folder))? {
        let entry = entry.map_err(SubmitError::io("list", folder))?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|end| end == "yaml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
