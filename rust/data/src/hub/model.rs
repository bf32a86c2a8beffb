//! A model of the Hub in the cache: the files that these programs and transformers read of it.

use super::{
    client::Hub,
    download::{Downloaded, Fetch, Job},
    error::HubError,
    listing::Listing,
};
use hlrp_schema::hub::{MAIN, Pinned, RepoKind, cache_entry, cached_snapshot};
use std::{fs, sync::atomic::AtomicU64};

/// What every model has.
const CONFIG: &str = "config.json";
/// End of the names of weights.
const WEIGHTS: &str = ".safetensors";

/// Whether a file is fetched: weights as safetensors, and the JSON with sizes, tokenizer and preprocessing. Copies of the weights in
/// other formats, and what folders of the repository hold (exports to other programs), are left out.
fn is_wanted(path: &str) -> bool {
    !path.contains('/') && (path.ends_with(WEIGHTS) || path.ends_with(".json"))
}

/// Fetches what is read of the model `repo_id` and the cache does not have, at a branch, tag or commit (the main branch if none). It continues,
/// compares and points to the new commit as [`super::download()`] does.
///
/// # Errors
/// [`HubError`] if the Hub does not give it, it has no weights that can be read, something that arrives is damaged, or the cache cannot be
/// written.
pub fn download_model(
    hub: &Hub,
    repo_id: &str,
    revision: Option<&str>,
    fetch: &Fetch<'_>,
) -> Result<Downloaded, HubError> {
    let revision = revision.unwrap_or(MAIN);
    if hub.settings.is_offline() {
        return offline(repo_id, revision, fetch);
    }
    let listing = Listing::of(hub, RepoKind::Model, repo_id, revision)?;
    let files: Vec<_> = listing.files.iter().filter(|(path, _)| is_wanted(path)).collect();
    if !is_model(files.iter().map(|(path, _)| path.as_str())) {
        return Err(HubError::Repository {
            repo: listing.pinned.to_string(),
            what: format!("is not a model that can be read: it needs {CONFIG} and weights as *{WEIGHTS}"),
            hint:
                "give a model that transformers or LeRobot saved as safetensors; others are fetched with `hf download`"
                    .to_owned(),
        });
    }
    let num_bytes = AtomicU64::new(0);
    let mut job = Job::new(hub, RepoKind::Model, &listing.pinned, fetch, &num_bytes);
    job.run(&files)?;
    job.finish(revision)
}

fn is_model<'a>(names: impl Iterator<Item = &'a str> + Clone) -> bool {
    names.clone().any(|name| name == CONFIG) && names.clone().any(|name| name.ends_with(WEIGHTS))
}

/// The model as the cache has it.
fn offline(repo_id: &str, revision: &str, fetch: &Fetch<'_>) -> Result<Downloaded, HubError> {
    let is_missing = || HubError::Offline { what: format!("{repo_id} at {revision}") };
    let entry = cache_entry(fetch.cache, RepoKind::Model, repo_id);
    let snapshot = cached_snapshot(&entry, revision).ok_or_else(is_missing)?;
    let pinned = Pinned::of(RepoKind::Model, &snapshot).ok_or_else(is_missing)?;
    let mut files = Vec::new();
    for found in fs::read_dir(&snapshot).map_err(HubError::io(&snapshot))? {
        let found = found.map_err(HubError::io(&snapshot))?;
        let name = found.file_name().to_string_lossy().into_owned();
        // A link leads to its content, which an interrupted download may lack.
        if let Some(metadata) =
            fs::metadata(found.path()).ok().filter(|metadata| metadata.is_file() && is_wanted(&name))
        {
            files.push((name, metadata.len()));
        }
    }
    if !is_model(files.iter().map(|(name, _)| name.as_str())) {
        return Err(is_missing());
    }
    let num_bytes = files.iter().map(|(_, size)| size).sum();
    Ok(Downloaded { snapshot, pinned, num_files: files.len(), num_bytes, num_fetched: 0 })
}

#[cfg(test)]
mod tests {
    use super::is_wanted;

    #[test]
    fn sizes_weights_and_tokenizers_are_fetched() {
        for name in
            ["config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.json"]
        {
            assert!(is_wanted(name), "{name}");
        }
        for name in [
            "README.md",
            "pytorch_model.bin",
            "onnx/model.onnx",
            "onnx/config.json",
            "tf_model.h5",
            "x.safetensors.bak",
        ] {
            assert!(!is_wanted(name), "{name}");
        }
    }
}
