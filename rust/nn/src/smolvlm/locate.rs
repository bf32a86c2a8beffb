//! Where a model lies on this machine.

use super::SmolVlmError;
use std::path::{Path, PathBuf};

/// The folder of `model`: a folder itself, or the snapshot that `refs/main` of the Hugging Face cache names for a repository
/// (`organisation/name`). A cache entry (`models--organisation--name`) counts as its snapshot.
///
/// # Errors
/// Neither exists.
pub fn locate(model: &str, hub_cache: &Path) -> Result<PathBuf, SmolVlmError> {
    let folder = Path::new(model);
    if folder.is_dir() {
        return Ok(main_snapshot(folder).unwrap_or_else(|| folder.to_owned()));
    }
    main_snapshot(&hub_cache.join(format!("models--{}", model.replace('/', "--"))))
        .ok_or_else(|| SmolVlmError::NotFound { model: model.to_owned(), hub_cache: hub_cache.to_owned() })
}

/// `refs/main` holds the commit whose files lie in `snapshots/<commit>`.
fn main_snapshot(entry: &Path) -> Option<PathBuf> {
    let commit = std::fs::read_to_string(entry.join("refs").join("main")).ok()?;
    let snapshot = entry.join("snapshots").join(commit.trim());
    snapshot.is_dir().then_some(snapshot)
}
