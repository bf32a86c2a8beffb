//! Building a cache: once, by many threads, in a way that can be killed at any time.

use super::{
    format::{FRAME_BAD, FRAME_OK, Layout, damaged, encode_record},
    spec::CacheSpec,
    store::FrameCache,
};
use crate::error::DataError;
use crate::frames::{FrameReader, FrameStore};
use hlrp_track::fs::{DiskRules, ensure_free};
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};
use xxhash_rust::xxh3::Xxh3;

/// What to do where the frames do not fit.
const SPACE: &str = "put frame caches on a larger disk (data.cache.dir, --cache-dir of hlrp label), lower the image size or the number of episodes, or decode \
                     frames each time (data.cache.enabled=false)";
/// Frames that a thread decodes before it writes them.
const FRAMES_PER_WRITE: usize = 32;

/// How a cache is built.
pub struct BuildOptions<'a> {
    /// Decode threads.
    pub num_workers: usize,
    /// Open video files per decode thread.
    pub max_open_decoders: usize,
    /// Frames that may fail to decode before the build stops.
    pub max_bad_frames: u64,
    /// What the cache must leave free.
    pub disk: &'a DiskRules,
    /// Receives the frames done and the frames in all.
    pub progress: &'a (dyn Fn(u64, u64) + Sync),
}

impl FrameCache {
    /// Opens the cache of `spec` under `dir`, and builds it first if it does not exist. `frames` opens what to decode from.
    /// Waits while another process builds the same cache.
    ///
    /// # Errors
    /// The cache is damaged, the disk is too full, a file cannot be written, or more frames than allowed cannot be decoded.
    /// What was built until then is kept, and the next build continues there.
    pub fn open_or_build<'f>(
        dir: &Path,
        spec: &CacheSpec,
        frames: impl FnOnce() -> Result<Box<dyn FrameStore + 'f>, DataError>,
        options: &BuildOptions<'_>,
    ) -> Result<Self, DataError> {
        let path = spec.path(dir);
        if path.exists() {
            return Self::open(&path, spec);
        }
        fs::create_dir_all(dir).map_err(DataError::io(dir))?;
        let _lock = lock(&spec.lock_path(dir))?;
        // Another process may have finished while this one waited.
        if !path.exists() {
            let partial = spec.partial_path(dir);
            build(&partial, spec, frames()?.as_ref(), options)?;
            fs::rename(&partial, &path).map_err(DataError::io(&path))?;
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(DataError::io(dir))?;
        }
        Self::open(&path, spec)
    }
}

/// Locks `path` for this process, after any other.
fn lock(path: &Path) -> Result<File, DataError> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(DataError::io(path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            tracing::info!(lock = %path.display(), "another process builds this frame cache: waiting for it");
            file.lock().map_err(DataError::io(path))?;
        }
        Err(fs::TryLockError::Error(error)) => return Err(DataError::Io { path: path.to_owned(), source: error }),
    }
    Ok(file)
}

/// Fills the unfinished file at `path` and checks all of it.
fn build(path: &Path, spec: &CacheSpec, frames: &dyn FrameStore, options: &BuildOptions<'_>) -> Result<(), DataError> {
    debug_assert_eq!(frames.size(), spec.size(), "the frames to cache have another size");
    let layout = Layout::of(spec);
    let file = open_partial(path, &layout, options.disk)?;
    let mut todo = Vec::new();
    let mut num_bad = 0;
    let written = FrameCache::map(path, spec)?;
    for position in 0..spec.spans.len() {
        if written.is_intact(position)? {
            num_bad += written.num_bad_frames(position)?;
        } else {
            todo.push(position);
        }
    }
    let build = Build {
        file,
        path,
        spec,
        layout: &layout,
        options,
        num_bad: AtomicU64::new(num_bad),
        num_done: AtomicU64::new(
            spec.identity.num_frames - todo.iter().map(|&p| spec.spans[p].num_frames()).sum::<u64>(),
        ),
        error: Mutex::new(None),
    };
    build.run(&todo, frames)?;
    build.file.sync_all().map_err(DataError::io(path))?;
    FrameCache::open(path, spec)?.verify(&|_, _| {})
}

/// Opens or begins the unfinished file, if the disk has room for all of it.
fn open_partial(path: &Path, layout: &Layout, disk: &DiskRules) -> Result<File, DataError> {
    let io = |error| DataError::Io { path: path.to_owned(), source: error };
    let present = fs::metadata(path).map_or(0, |metadata| metadata.blocks() * 512);
    let needed = layout.file_len().saturating_sub(present);
    ensure_free(path, needed, disk).map_err(DataError::space(SPACE))?;
    let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    let mut header = vec![0; layout.header.len().min(usize::try_from(metadata.len()).unwrap_or(usize::MAX))];
    file.read_exact_at(&mut header, 0).map_err(io)?;
    // A build that was killed before its header was written leaves an empty file or zeros.
    if header.iter().all(|&byte| byte == 0) {
        file.set_len(layout.file_len()).map_err(io)?;
        file.write_all_at(&layout.header, 0).map_err(io)?;
    } else {
        layout.check_header(&header, path)?;
        if metadata.len() != layout.file_len() {
            return Err(damaged(path, format!("has {} bytes instead of {}", metadata.len(), layout.file_len())));
        }
    }
    Ok(file)
}

/// A build in progress.
struct Build<'a> {
    file: File,
    path: &'a Path,
    spec: &'a CacheSpec,
    layout: &'a Layout,
    options: &'a BuildOptions<'a>,
    num_bad: AtomicU64,
    num_done: AtomicU64,
    /// The first error of any thread; the others stop at their next episode.
    error: Mutex<Option<DataError>>,
}

impl Build<'_> {
    /// Decodes the episodes at the positions `todo`.
    fn run(&self, todo: &[usize], frames: &dyn FrameStore) -> Result<(), DataError> {
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..self.options.num_workers.min(todo.len()) {
                scope.spawn(|| {
                    if let Err(error) = self.work(todo, &next, frames) {
                        self.error().get_or_insert(error);
                    }
                });
            }
        });
        self.error().take().map_or(Ok(()), Err)
    }

    /// One thread.
    fn work(&self, todo: &[usize], next: &AtomicUsize, frames: &dyn FrameStore) -> Result<(), DataError> {
        let mut reader = frames.reader(self.options.max_open_decoders)?;
        let mut buffer = vec![0; FRAMES_PER_WRITE * self.layout.frame_bytes as usize];
        while let Some(&position) = todo.get(next.fetch_add(1, Ordering::Relaxed)) {
            if self.error().is_some() {
                break;
            }
            self.write_episode(position, reader.as_mut(), &mut buffer)?;
        }
        Ok(())
    }

    /// Writes frames and status bytes of an episode, then its record.
    fn write_episode(&self, position: usize, reader: &mut dyn FrameReader, buffer: &mut [u8]) -> Result<(), DataError> {
        let io = |error: io::Error| DataError::Io { path: self.path.to_owned(), source: error };
        let span = self.spec.spans[position];
        let first_frame = self.layout.first_frames[position];
        let frame_bytes = self.layout.frame_bytes as usize;
        let rows: Vec<u64> = (span.from_row..span.to_row).collect();
        let mut statuses = Vec::with_capacity(rows.len());
        let mut checksum = Xxh3::new();
        for rows in rows.chunks(FRAMES_PER_WRITE) {
            let pixels = &mut buffer[..rows.len() * frame_bytes];
            let start = self.layout.frames(first_frame + statuses.len() as u64, 0).start;
            if reader.read(rows, pixels).is_ok() {
                statuses.extend(rows.iter().map(|_| FRAME_OK));
            } else {
                for (row, pixels) in rows.iter().zip(pixels.chunks_exact_mut(frame_bytes)) {
                    statuses.push(self.read_or_count(*row, reader, pixels)?);
                }
            }
            checksum.update(pixels);
            self.file.write_all_at(pixels, start).map_err(io)?;
            let num_done = self.num_done.fetch_add(rows.len() as u64, Ordering::Relaxed) + rows.len() as u64;
            (self.options.progress)(num_done, self.spec.identity.num_frames);
        }
        checksum.update(&statuses);
        self.file.write_all_at(&statuses, self.layout.statuses(first_frame, 0).start).map_err(io)?;
        let record = encode_record(position, checksum.digest());
        self.file.write_all_at(&record, self.layout.record(position).start).map_err(io)
    }

    /// Reads one frame; a frame that cannot be decoded is black and counted.
    fn read_or_count(&self, row: u64, reader: &mut dyn FrameReader, pixels: &mut [u8]) -> Result<u8, DataError> {
        let Err(error) = reader.read(&[row], pixels) else { return Ok(FRAME_OK) };
        if self.num_bad.fetch_add(1, Ordering::Relaxed) >= self.options.max_bad_frames {
            return Err(error);
        }
        tracing::warn!("frame left out of the cache: {error}");
        pixels.fill(0);
        Ok(FRAME_BAD)
    }

    fn error(&self) -> std::sync::MutexGuard<'_, Option<DataError>> {
        crate::lock::lock(&self.error)
    }
}
