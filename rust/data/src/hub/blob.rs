//! One file of a repository in the cache: its content, checked, and the link of a snapshot to it.
//!
//! A content is fetched into `<digest>.incomplete` under the lock that `huggingface_hub` takes as well, and gets its name when it is whole and has
//! the digest that names it. What an interrupted try has left is continued. Of a file that has changed meanwhile nothing is continued: its
//! digest, and so its name, is another one.

use super::{
    client::{Answer, Failure, Hub, Tries, cut_off, shown},
    error::HubError,
    listing::{RemoteFile, is_digest},
};
use hlrp_schema::hub::{Pinned, RepoKind, cache_entry};
use hlrp_track::fs::{DiskRules, ensure_free};
use reqwest::Url;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

/// Bytes that are copied at a time.
const BLOCK: usize = 1 << 18;
/// The error of a file system without locks.
const ENOLCK: i32 = 37;
/// Downloads of a file whose content does not have its digest, or that changes each time.
const MAX_ROUNDS: usize = 3;

/// The folder of a repository in the cache, which files are fetched into.
pub(super) struct CacheEntry<'a> {
    kind: RepoKind,
    folder: PathBuf,
    locks: PathBuf,
    pinned: &'a Pinned,
    disk: &'a DiskRules,
    /// Bytes that have arrived, with those that a former try had left.
    num_bytes: &'a AtomicU64,
}

impl<'a> CacheEntry<'a> {
    pub(super) fn new(
        cache: &Path,
        kind: RepoKind,
        pinned: &'a Pinned,
        disk: &'a DiskRules,
        num_bytes: &'a AtomicU64,
    ) -> Self {
        let folder = cache_entry(cache, kind, &pinned.repo_id);
        let locks = cache.join(".locks").join(folder.file_name().unwrap_or_default());
        Self { kind, folder, locks, pinned, disk, num_bytes }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn snapshot(&self) -> PathBuf {
        self.folder.join("snapshots").join(&self.pinned.commit)
    }

    fn blob(&self, digest: &str) -> PathBuf {
        self.folder.join("blobs").join(digest)
    }

    /// Whether the snapshot has a file, whole.
    pub(super) fn has(&self, path: &str, file: &RemoteFile) -> bool {
        fs::metadata(self.snapshot().join(path)).is_ok_and(|found| found.is_file() && found.len() == file.size)
    }

    /// Bytes that are still missing of a file.
    pub(super) fn num_missing(&self, file: &RemoteFile) -> u64 {
        let len = |path: PathBuf| fs::metadata(path).map_or(0, |metadata| metadata.len());
        let there = len(self.blob(&file.digest)).max(len(partial(&self.blob(&file.digest))));
        file.size.saturating_sub(there)
    }

    /// Fetches a file, if it is not there, and links it into the snapshot.
    ///
    /// # Errors
    /// The Hub does not give it, its content is damaged, or the cache cannot be written.
    pub(super) fn fetch(&self, hub: &Hub, path: &str, file: &RemoteFile) -> Result<(), HubError> {
        if self.has(path, file) {
            self.num_bytes.fetch_add(file.size, Ordering::Relaxed);
            return Ok(());
        }
        let url = hub.file_url(self.kind, self.pinned, path)?;
        let mut file = file.clone();
        let mut last = "its content keeps changing";
        for _ in 0..MAX_ROUNDS {
            match self.fetch_blob(hub, &url, &file)? {
                Fetched::Whole => return self.link(path, &file.digest),
                Fetched::Changed(now) => {
                    tracing::warn!("{}: it has changed on the server; it is fetched from its beginning", shown(&url));
                    file = now;
                }
                Fetched::Damaged(what) => {
                    tracing::warn!("{}: {what}; it is fetched again", shown(&url));
                    last = what;
                }
            }
        }
        Err(HubError::Damaged { url: shown(&url), what: format!("{last}, {MAX_ROUNDS} times in a row") })
    }

    fn fetch_blob(&self, hub: &Hub, url: &Url, file: &RemoteFile) -> Result<Fetched, HubError> {
        let blob = self.blob(&file.digest);
        let _lock = self.lock(&file.digest)?;
        if fs::metadata(&blob).is_ok_and(|found| found.len() == file.size) {
            self.num_bytes.fetch_add(file.size, Ordering::Relaxed);
            return Ok(Fetched::Whole);
        }
        create_parent(&blob)?;
        let mut incomplete = Incomplete::open(partial(&blob), file)?;
        ensure_free(&blob, file.size - incomplete.len, &DiskRules { quota_command: None, ..self.disk.clone() })?;
        self.num_bytes.fetch_add(incomplete.len, Ordering::Relaxed);
        let mut tries = Tries::default();
        while incomplete.len < file.size || file.size == 0 && !incomplete.is_asked {
            let before = incomplete.len;
            let answer = hub.get(url, (before > 0).then_some(before..u64::MAX));
            incomplete.is_asked = true;
            let failure = match answer {
                Ok(answer) => match changed(&answer, file) {
                    Some(now) => {
                        self.num_bytes.fetch_sub(before, Ordering::Relaxed);
                        return Ok(Fetched::Changed(now));
                    }
                    None => incomplete.append(answer, self.num_bytes)?,
                },
                Err(Failure::Range) => {
                    self.num_bytes.fetch_sub(before, Ordering::Relaxed);
                    incomplete.start_over()?;
                    Some(Failure::Range)
                }
                Err(failure) => Some(failure),
            };
            if incomplete.len > before {
                tries.progress();
            }
            if let Some(failure) = failure {
                tries.failed(url, failure)?;
            }
        }
        if let Some(what) = incomplete.finish()? {
            self.num_bytes.fetch_sub(file.size, Ordering::Relaxed);
            return Ok(Fetched::Damaged(what));
        }
        fs::rename(partial(&blob), &blob).map_err(HubError::io(&blob))?;
        Ok(Fetched::Whole)
    }

    /// The lock of a blob, which is free again when it is dropped.
    fn lock(&self, digest: &str) -> Result<File, HubError> {
        let path = self.locks.join(format!("{digest}.lock"));
        create_parent(&path)?;
        let options = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = options.map_err(HubError::io(&path))?;
        match file.lock() {
            // Some shared file systems have no locks.
            Err(error) if error.kind() == io::ErrorKind::Unsupported || error.raw_os_error() == Some(ENOLCK) => {
                tracing::warn!("{}: {error}; do not download the same repository twice at once", path.display());
            }
            locked => locked.map_err(HubError::io(&path))?,
        }
        Ok(file)
    }

    /// Links a file of the snapshot to its blob, in one step.
    fn link(&self, path: &str, digest: &str) -> Result<(), HubError> {
        let link = self.snapshot().join(path);
        create_parent(&link)?;
        let up = Path::new("../..").join("../".repeat(path.matches('/').count()));
        let target = up.join("blobs").join(digest);
        match symlink(&target, &link) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(HubError::io(&link)(error)),
            Err(_) if fs::read_link(&link).is_ok_and(|found| found == target) => return Ok(()),
            Err(_) => {}
        }
        // A link to another content, or what a client left that cannot make links.
        let name = link.file_name().unwrap_or_default().to_string_lossy();
        let new = link.with_file_name(format!(".{name}.{}.link", process::id()));
        symlink(&target, &new).map_err(HubError::io(&new))?;
        fs::rename(&new, &link).map_err(HubError::io(&link))
    }
}

/// What became of a download.
enum Fetched {
    /// The blob is there.
    Whole,
    /// The server has another content now.
    Changed(RemoteFile),
    /// The content does not have its digest; it was dropped.
    Damaged(&'static str),
}

/// The file that an answer has in the place of `file`; none where it is that.
fn changed(answer: &Answer, file: &RemoteFile) -> Option<RemoteFile> {
    let digest = answer.etag.clone().filter(|etag| is_digest(etag) && *etag != file.digest)?;
    Some(RemoteFile { digest, size: answer.size.unwrap_or(file.size) })
}

fn partial(blob: &Path) -> PathBuf {
    blob.with_extension("incomplete")
}

fn create_parent(path: &Path) -> Result<(), HubError> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(HubError::io(folder))
}

/// The digest of a content so far.
enum Hasher {
    Sha256(Sha256),
    Git(Sha1),
}

impl Hasher {
    fn new(file: &RemoteFile) -> Self {
        // A digest in git is that of the size and the content.
        let git = || Sha1::new().chain_update(format!("blob {}\0", file.size));
        if file.digest.len() == 64 { Self::Sha256(Sha256::new()) } else { Self::Git(git()) }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Git(hasher) => hasher.update(bytes),
        }
    }

    fn finish(self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match self {
            Self::Sha256(hasher) => hex(&hasher.finalize()),
            Self::Git(hasher) => hex(&hasher.finalize()),
        }
    }
}

/// A content that is being fetched.
struct Incomplete<'a> {
    path: PathBuf,
    wanted: &'a RemoteFile,
    file: File,
    hasher: Hasher,
    /// Bytes that it has.
    len: u64,
    /// Whether the server was asked: even for an empty content.
    is_asked: bool,
}

impl<'a> Incomplete<'a> {
    /// Opens what a former try has left; what is longer than the file is dropped.
    fn open(path: PathBuf, wanted: &'a RemoteFile) -> Result<Self, HubError> {
        let options = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let file = options.map_err(HubError::io(&path))?;
        let mut opened = Self { path, wanted, file, hasher: Hasher::new(wanted), len: 0, is_asked: false };
        let mut block = vec![0; BLOCK];
        loop {
            match opened.file.read(&mut block).map_err(HubError::io(&opened.path))? {
                0 => return Ok(opened),
                count => {
                    opened.hasher.update(&block[..count]);
                    opened.len += count as u64;
                }
            }
            if opened.len > wanted.size {
                opened.start_over()?;
            }
        }
    }

    fn start_over(&mut self) -> Result<(), HubError> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(HubError::io(&self.path))?;
        (self.hasher, self.len) = (Hasher::new(self.wanted), 0);
        Ok(())
    }

    /// Appends an answer. Returns why it ended too early, if it did.
    fn append(&mut self, mut answer: Answer, num_bytes: &AtomicU64) -> Result<Option<Failure>, HubError> {
        let passing = |reason: String| Some(Failure::Passing { after: None, reason });
        if answer.start != self.len {
            num_bytes.fetch_sub(self.len, Ordering::Relaxed);
            self.start_over()?;
            if answer.start != 0 {
                return Ok(passing(format!("it was sent from byte {} on", answer.start)));
            }
        }
        let mut block = vec![0; BLOCK];
        loop {
            let count = match answer.response.read(&mut block) {
                Ok(0) if self.len < self.wanted.size => {
                    return Ok(passing(format!("it ended after {} of {} bytes", self.len, self.wanted.size)));
                }
                Ok(0) => return Ok(None),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(passing(cut_off(&error))),
            };
            if self.len + count as u64 > self.wanted.size {
                num_bytes.fetch_sub(self.len, Ordering::Relaxed);
                self.start_over()?;
                return Ok(passing(format!("it has more than {} bytes", self.wanted.size)));
            }
            self.file.write_all(&block[..count]).map_err(HubError::io(&self.path))?;
            self.hasher.update(&block[..count]);
            self.len += count as u64;
            num_bytes.fetch_add(count as u64, Ordering::Relaxed);
        }
    }

    /// Checks the whole content. Returns what is wrong with it, and drops it then.
    fn finish(mut self) -> Result<Option<&'static str>, HubError> {
        let digest = std::mem::replace(&mut self.hasher, Hasher::new(self.wanted)).finish();
        if digest != self.wanted.digest {
            self.start_over()?;
            return Ok(Some("its content does not have its digest"));
        }
        self.file.sync_all().map_err(HubError::io(&self.path))?;
        Ok(None)
    }
}
