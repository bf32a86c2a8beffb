//! A dataset of the Hub in the cache, as much of it as is wanted.

use super::{
    blob::CacheEntry,
    client::Hub,
    error::HubError,
    listing::{Listing, RemoteFile},
};
use crate::error::DataError;
use crate::formats::lerobot::{INFO, META, Needed, Wanted};
use crate::lock::lock;
use hlrp_schema::hub::{MAIN, Pinned, RepoKind, cache_entry, cached_snapshot, is_commit};
use hlrp_track::fs::{DiskRules, ensure_free, write_atomic};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// Files that are fetched at once.
const NUM_THREADS: usize = 8;
/// How often a progress is told.
const TELL_EVERY: Duration = Duration::from_millis(50);

/// Which part of a dataset is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// Name of the repository.
    pub repo_id: String,
    /// Branch, tag or commit; the main branch if none.
    pub revision: Option<String>,
    /// Feature keys of the cameras; all of them if none.
    pub cameras: Option<Vec<String>>,
    /// Indices of the episodes; all of them if none.
    pub episodes: Option<Vec<u64>>,
    /// Whether videos are wanted too; all else always is.
    pub with_videos: bool,
}

/// How files are fetched.
pub struct Fetch<'a> {
    /// Folder of the repositories.
    pub cache: &'a Path,
    /// What must stay free on its disk.
    pub disk: &'a DiskRules,
    /// Receives the bytes that are there, and those that there will be.
    pub progress: &'a (dyn Fn(u64, u64) + Sync),
}

/// A repository in the cache.
#[derive(Debug, Clone, PartialEq)]
pub struct Downloaded {
    /// Its folder.
    pub snapshot: PathBuf,
    /// Its name and commit.
    pub pinned: Pinned,
    /// Files that were wanted, and their bytes.
    pub num_files: usize,
    /// Their bytes.
    pub num_bytes: u64,
    /// Bytes of them that were fetched by this call.
    pub num_fetched: u64,
}

impl Selection {
    /// Its revision.
    pub(super) fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(MAIN)
    }

    /// What its cameras and episodes need.
    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            cameras: self.cameras.as_deref(),
            episodes: self.episodes.as_deref(),
            excluded: None,
            cameras_key: "--cameras",
            episodes_key: "--episodes",
        }
    }
}

/// Fetches what `selection` needs and the cache does not have. An interrupted download continues when it is called again. The revision leads to the
/// new commit when all of it is there. Without access to the Hub (`HF_HUB_OFFLINE`) everything must be there.
///
/// # Errors
/// [`hlrp_config::Problem`] with a camera or an episode that the dataset does not have; [`HubError`] if the Hub does not give it, something that
/// arrives is damaged, or the cache cannot be written.
pub fn download(hub: &Hub, selection: &Selection, fetch: &Fetch<'_>) -> Result<Downloaded, DataError> {
    let (repo_id, revision) = (&selection.repo_id, selection.revision());
    if hub.settings.is_offline() {
        return offline(selection, fetch.cache);
    }
    let listing = Listing::of(hub, RepoKind::Dataset, repo_id, revision)?;
    let pinned = &listing.pinned;
    if !listing.files.contains_key(INFO) {
        return Err(not_a_dataset(pinned).into());
    }
    let num_bytes = AtomicU64::new(0);
    let mut job = Job::new(hub, RepoKind::Dataset, pinned, fetch, &num_bytes);
    let meta: Vec<_> = listing.files.iter().filter(|(path, _)| path.starts_with(&format!("{META}/"))).collect();
    job.run(&meta)?;

    let needed = Needed::of(&job.entry.snapshot(), &selection.wanted())?;
    let videos = needed.videos.iter().filter(|_| selection.with_videos);
    let names: BTreeSet<String> = needed.tables.iter().chain(videos).map(|path| path.display().to_string()).collect();
    let files = names.iter().map(|name| listing.files.get_key_value(name).ok_or_else(|| lacks(pinned, name)));
    let files: Vec<_> = files.collect::<Result<_, HubError>>()?;
    job.run(&files)?;
    Ok(job.finish(revision)?)
}

/// What the cache has of a selection, if that is all of it.
fn offline(selection: &Selection, cache: &Path) -> Result<Downloaded, DataError> {
    let Selection { repo_id, .. } = selection;
    let is_missing = || HubError::Offline { what: format!("{repo_id} at {}", selection.revision()) };
    let entry = cache_entry(cache, RepoKind::Dataset, repo_id);
    let snapshot = cached_snapshot(&entry, selection.revision()).ok_or_else(is_missing)?;
    let pinned = Pinned::of_dataset(&snapshot).ok_or_else(is_missing)?;
    let needed = Needed::of(&snapshot, &selection.wanted())?;
    let videos = needed.videos.iter().filter(|_| selection.with_videos);
    let (mut num_files, mut num_bytes) = (0, 0);
    for path in needed.tables.iter().chain(videos) {
        let found = fs::metadata(snapshot.join(path));
        let what = || format!("{} of {repo_id} at {}", path.display(), selection.revision());
        num_bytes += found.map_err(|_| HubError::Offline { what: what() })?.len();
        num_files += 1;
    }
    Ok(Downloaded { snapshot, pinned, num_files, num_bytes, num_fetched: 0 })
}

fn not_a_dataset(pinned: &Pinned) -> HubError {
    HubError::Repository {
        repo: pinned.to_string(),
        what: format!("is not a LeRobot dataset: it has no {INFO}"),
        hint: "give a dataset of the format LeRobot v3 or v2.1; others are fetched with `hf download`, models with --repo-type model"
            .to_owned(),
    }
}

fn lacks(pinned: &Pinned, path: &str) -> HubError {
    HubError::Repository {
        repo: pinned.to_string(),
        what: format!("its metadata names {path}, which the repository does not have"),
        hint: "choose other cameras or episodes, or tell the dataset's authors".to_owned(),
    }
}

/// The files of a repository that are fetched.
pub(super) struct Job<'a> {
    hub: &'a Hub,
    pub(super) entry: CacheEntry<'a>,
    pinned: &'a Pinned,
    fetch: &'a Fetch<'a>,
    /// Bytes that are there.
    num_bytes: &'a AtomicU64,
    /// Files so far, their bytes, and those of them that were missing.
    totals: (usize, u64, u64),
}

impl<'a> Job<'a> {
    pub(super) fn new(
        hub: &'a Hub,
        kind: RepoKind,
        pinned: &'a Pinned,
        fetch: &'a Fetch<'a>,
        num_bytes: &'a AtomicU64,
    ) -> Self {
        let entry = CacheEntry::new(fetch.cache, kind, pinned, fetch.disk, num_bytes);
        Self { hub, entry, pinned, fetch, num_bytes, totals: (0, 0, 0) }
    }

    /// Fetches files, several at once. After an error those that are under way are finished, and no other begins.
    ///
    /// # Errors
    /// The disk has no room, the Hub does not give a file, or its content is damaged.
    pub(super) fn run(&mut self, files: &[(&String, &RemoteFile)]) -> Result<(), HubError> {
        let num_bytes: u64 = files.iter().map(|(_, file)| file.size).sum();
        let missing = files.iter().filter(|(path, file)| !self.entry.has(path, file));
        let num_missing = missing.map(|(_, file)| self.entry.num_missing(file)).sum::<u64>();
        ensure_free(self.entry.folder(), num_missing, self.fetch.disk)?;
        let total = self.num_bytes.load(Ordering::Relaxed) + num_bytes;
        let next = AtomicUsize::new(0);
        let failed: Mutex<Option<HubError>> = Mutex::new(None);
        let work = || {
            while let Some((path, file)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                if lock(&failed).is_some() {
                    break;
                }
                if let Err(error) = self.entry.fetch(self.hub, path, file) {
                    lock(&failed).get_or_insert(error);
                }
            }
        };
        let tell = || (self.fetch.progress)(self.num_bytes.load(Ordering::Relaxed), total);
        thread::scope(|scope| {
            let threads: Vec<_> = (0..NUM_THREADS.min(files.len())).map(|_| scope.spawn(work)).collect();
            while !threads.iter().all(|thread| thread.is_finished()) {
                tell();
                thread::sleep(TELL_EVERY);
            }
        });
        tell();
        let (files_so_far, bytes_so_far, missing_so_far) = self.totals;
        self.totals = (files_so_far + files.len(), bytes_so_far + num_bytes, missing_so_far + num_missing);
        failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// Lets the revision lead to the commit, now that all of it is there.
    ///
    /// # Errors
    /// The cache cannot be written.
    pub(super) fn finish(self, revision: &str) -> Result<Downloaded, HubError> {
        if !is_commit(revision) {
            let path = self.entry.folder().join("refs").join(revision);
            fs::create_dir_all(path.parent().unwrap_or(&path)).map_err(HubError::io(&path))?;
            write_atomic(&path, &self.pinned.commit)?;
        }
        let (num_files, num_bytes, num_fetched) = self.totals;
        let (snapshot, pinned) = (self.entry.snapshot(), self.pinned.clone());
        Ok(Downloaded { snapshot, pinned, num_files, num_bytes, num_fetched })
    }
}
