//! Where the dataset of a source is on this machine.

use super::settings::{cache_dir, is_cache_named, lerobot_cache_dir};
use crate::error::DataError;
use crate::formats::lerobot::{Needed, Wanted};
use hlrp_config::Problem;
use hlrp_schema::SourceConfig;
use hlrp_schema::hub::{MAIN, Pinned, RepoKind, cache_entry, cached_snapshot};
use hlrp_track::run::DataSource;
use std::{
    borrow::Cow,
    fmt::Write,
    path::{Path, PathBuf},
};

/// The dataset of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Its folder.
    pub root: PathBuf,
    /// Its name on the Hub and its commit, where the source names one.
    pub pinned: Option<Pinned>,
}

impl Location {
    /// A name for what is kept of the dataset.
    pub(crate) fn name(&self) -> Result<Cow<'_, str>, DataError> {
        if let Some(pinned) = &self.pinned {
            return Ok(pinned.repo_id.replace('/', "--").into());
        }
        let folder = self.root.canonicalize().map_err(DataError::io(&self.root))?;
        Ok(folder.file_name().map_or_else(|| "dataset".into(), |name| name.to_string_lossy().into_owned().into()))
    }
}

/// The folder of a source: the configured one, or the snapshot of its revision that was downloaded.
///
/// # Errors
/// [`Problem`] with the command that downloads a dataset that is not there.
pub fn locate(name: &str, source: &SourceConfig) -> Result<Location, Problem> {
    let (root, repo_id) = match (&source.root, &source.repo_id) {
        (Some(root), _) => return Ok(Location { root: root.clone(), pinned: None }),
        (None, repo_id) => (cache_dir(), repo_id.as_deref().unwrap_or_default()),
    };
    let key = || format!("data.sources.{name}.repo_id");
    let cache = root.ok_or_else(|| {
        Problem::new(key(), "no variable names a cache of Hugging Face", "set HF_HUB_CACHE to a folder, or HOME")
    })?;
    let revision = source.revision.as_deref().unwrap_or(MAIN);
    let found = [Some(cache.clone()), lerobot_cache_dir()].into_iter().flatten().find_map(|cache| {
        let root = cached_snapshot(&cache_entry(&cache, RepoKind::Dataset, repo_id), revision)?;
        Some((Pinned::of_dataset(&root)?, root))
    });
    match found {
        Some((pinned, root)) => Ok(Location { root, pinned: Some(pinned) }),
        None => {
            let message = format!("{repo_id} at {revision} is not in {}", cache.display());
            Err(Problem::new(key(), message, download_hint(source, &cache)))
        }
    }
}

/// Refuses a snapshot without the files that a source needs.
///
/// # Errors
/// [`Problem`] with the command that downloads them; its metadata is damaged.
pub(crate) fn require_files(name: &str, source: &SourceConfig, location: &Location) -> Result<(), DataError> {
    let Some(pinned) = &location.pinned else { return Ok(()) };
    let cameras: Vec<String> = source.cameras.values().cloned().collect();
    let (cameras_key, episodes_key) = (format!("data.sources.{name}.cameras"), format!("data.sources.{name}.episodes"));
    let wanted = Wanted {
        cameras: Some(&cameras),
        episodes: source.episodes.as_deref(),
        excluded: source.exclude_episodes.as_deref(),
        cameras_key: &cameras_key,
        episodes_key: &episodes_key,
    };
    let needed = Needed::of(&location.root, &wanted)?;
    let files = || needed.tables.iter().chain(needed.videos.iter().filter(|_| !source.is_streamed()));
    let missing: Vec<&PathBuf> = files().filter(|path| !location.root.join(path).is_file()).collect();
    let Some(first) = missing.first() else { return Ok(()) };
    let cache = location.root.ancestors().nth(3).unwrap_or(&location.root);
    let message = format!(
        "{} of {} files of {pinned} are not in {}, such as {}",
        missing.len(),
        files().count(),
        cache.display(),
        first.display()
    );
    let key = format!("data.sources.{name}.repo_id");
    Err(Problem::new(key, message, download_hint(source, cache)).into())
}

/// The command that downloads what a source needs.
fn download_hint(source: &SourceConfig, cache: &Path) -> String {
    let mut command = format!("`hlrp data download {}", source.repo_id.as_deref().unwrap_or_default());
    // Writing to a text does not fail.
    let mut add = |option: &str, value: &str| {
        let _ = write!(command, " --{option} {value}");
    };
    if let Some(revision) = &source.revision {
        add("revision", revision);
    }
    let cameras: Vec<&str> = source.cameras.values().map(String::as_str).collect();
    if !source.is_streamed() {
        add("cameras", &cameras.join(","));
    }
    if let Some(episodes) = &source.episodes {
        add("episodes", &episodes.iter().map(u64::to_string).collect::<Vec<_>>().join(","));
    }
    // Another shell may have other variables.
    if is_cache_named() || cache_dir().is_none_or(|own| own != cache) {
        add("cache-dir", &cache.display().to_string());
    }
    let no_videos = if source.is_streamed() { " --no-videos" } else { "" };
    format!("{command}{no_videos}` on a machine with network access")
}

/// What a run records of a source that it reads, but for its labels: where it is, its content and its episodes.
#[must_use]
pub fn recorded(name: &str, source: Option<&SourceConfig>, fingerprint: String, num_episodes: u64) -> DataSource {
    // A run that reads a source has found it.
    let location = source.and_then(|source| locate(name, source).ok());
    let (root, pinned) = location.map(|Location { root, pinned }| (root, pinned)).unwrap_or_default();
    let (repo_id, commit) = pinned.map(|pinned| (pinned.repo_id, pinned.commit)).unzip();
    DataSource { root, repo_id, commit, fingerprint, num_episodes, labels: None }
}
