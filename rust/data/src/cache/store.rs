//! A finished cache as a [`FrameStore`].

use super::{
    format::{FRAME_OK, Layout, damaged, decode_record},
    spec::CacheSpec,
};
use crate::error::DataError;
use crate::frames::{FrameReader, FrameSize, FrameStore};
use crate::request::EpisodeSpan;
use mmap_io::MemoryMappedFile;
use std::{
    ops::Range,
    path::{Path, PathBuf},
};
use xxhash_rust::xxh3::Xxh3;

/// Frames of one camera, read from a memory-mapped file.
pub struct FrameCache {
    path: PathBuf,
    map: MemoryMappedFile,
    layout: Layout,
    spans: Vec<EpisodeSpan>,
    /// Positions in `spans`, ordered by rows.
    by_row: Vec<usize>,
    size: FrameSize,
}

impl FrameCache {
    /// Opens the cache file at `path` and checks its header, its length and its episode records.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or contains other frames than `spec`.
    pub fn open(path: &Path, spec: &CacheSpec) -> Result<Self, DataError> {
        let cache = Self::map(path, spec)?;
        for episode in 0..cache.spans.len() {
            cache.checksum_of(episode)?.ok_or_else(|| {
                damaged(path, format!("the record of episode {} is damaged", cache.spans[episode].episode))
            })?;
        }
        Ok(cache)
    }

    /// Maps a finished or an unfinished file.
    pub(super) fn map(path: &Path, spec: &CacheSpec) -> Result<Self, DataError> {
        let layout = Layout::of(spec);
        let len = std::fs::metadata(path).map_err(DataError::io(path))?.len();
        if len != layout.file_len() {
            return Err(damaged(path, format!("has {len} bytes instead of {}", layout.file_len())));
        }
        let map = MemoryMappedFile::open_ro(path)
            .map_err(|error| DataError::Io { path: path.to_owned(), source: std::io::Error::other(error) })?;
        let mut by_row: Vec<usize> = (0..spec.spans.len()).collect();
        by_row.sort_by_key(|&position| spec.spans[position].from_row);
        let cache = Self { path: path.to_owned(), map, layout, spans: spec.spans.clone(), by_row, size: spec.size() };
        cache.layout.check_header(cache.bytes(0..cache.layout.header.len() as u64)?, path)?;
        Ok(cache)
    }

    /// Compares every frame with its checksum. `progress` receives the frames done and the frames in all.
    ///
    /// # Errors
    /// Names the first episode whose frames have changed.
    pub fn verify(&self, progress: &dyn Fn(u64, u64)) -> Result<(), DataError> {
        let num_frames = self.spans.iter().map(EpisodeSpan::num_frames).sum();
        let mut num_done = 0;
        for (position, span) in self.spans.iter().enumerate() {
            if !self.is_intact(position)? {
                return Err(damaged(
                    &self.path,
                    format!("the frames of episode {} do not match their checksum", span.episode),
                ));
            }
            num_done += span.num_frames();
            progress(num_done, num_frames);
        }
        Ok(())
    }

    /// Whether the episode at `position` was written and its bytes are those that were written.
    pub(super) fn is_intact(&self, position: usize) -> Result<bool, DataError> {
        let Some(recorded) = self.checksum_of(position)? else { return Ok(false) };
        let (first, num) = (self.layout.first_frames[position], self.spans[position].num_frames());
        let mut checksum = Xxh3::new();
        checksum.update(self.bytes(self.layout.frames(first, num))?);
        checksum.update(self.bytes(self.layout.statuses(first, num))?);
        Ok(checksum.digest() == recorded)
    }

    /// Frames of the episode at `position` that could not be decoded.
    pub(super) fn num_bad_frames(&self, position: usize) -> Result<u64, DataError> {
        let statuses = self.layout.statuses(self.layout.first_frames[position], self.spans[position].num_frames());
        Ok(self.bytes(statuses)?.iter().filter(|&&status| status != FRAME_OK).count() as u64)
    }

    fn checksum_of(&self, position: usize) -> Result<Option<u64>, DataError> {
        Ok(decode_record(position, self.bytes(self.layout.record(position))?))
    }

    fn bytes(&self, range: Range<u64>) -> Result<&[u8], DataError> {
        self.map.as_slice_bytes(range.start, range.end - range.start).map_err(|error| {
            damaged(&self.path, format!("bytes {}..{} cannot be read ({error})", range.start, range.end))
        })
    }

    /// Position of the episode of a row.
    fn position_of(&self, row: u64) -> Result<usize, DataError> {
        let after = self.by_row.partition_point(|&position| self.spans[position].from_row <= row);
        let position = after.checked_sub(1).map(|slot| self.by_row[slot]);
        position.filter(|&position| row < self.spans[position].to_row).ok_or_else(|| DataError::File {
            path: self.path.clone(),
            what: format!("row {row} belongs to no episode of this cache"),
            hint: "a cache contains the episodes of data.sources.<name>.episodes".to_owned(),
        })
    }
}

impl FrameStore for FrameCache {
    fn reader(&self, _max_open: usize) -> Result<Box<dyn FrameReader + '_>, DataError> {
        Ok(Box::new(CacheReader(self)))
    }

    fn size(&self) -> FrameSize {
        self.size
    }
}

/// Copies frames out of the mapping.
struct CacheReader<'a>(&'a FrameCache);

impl FrameReader for CacheReader<'_> {
    fn read(&mut self, rows: &[u64], out_TCHW: &mut [u8]) -> Result<(), DataError> {
        let cache = self.0;
        for (&row, out_CHW) in rows.iter().zip(out_TCHW.chunks_exact_mut(cache.layout.frame_bytes as usize)) {
            let position = cache.position_of(row)?;
            let span = cache.spans[position];
            let frame = cache.layout.first_frames[position] + (row - span.from_row);
            if cache.bytes(cache.layout.statuses(frame, 1))? != [FRAME_OK] {
                return Err(DataError::File {
                    path: cache.path.clone(),
                    what: format!(
                        "frame {} of episode {} could not be decoded when the cache was built",
                        row - span.from_row,
                        span.episode
                    ),
                    hint: "`hlrp data check` names what is wrong with the video".to_owned(),
                });
            }
            out_CHW.copy_from_slice(cache.bytes(cache.layout.frames(frame, 1))?);
        }
        Ok(())
    }
}
