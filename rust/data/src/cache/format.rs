//! Bytes of a cache file: where everything is, header, status bytes and episode records.

use super::spec::{CacheSpec, Identity};
use crate::error::DataError;
use std::{
    ops::Range,
    path::{Path, PathBuf},
};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// First bytes of the file.
const MAGIC: &[u8; 8] = b"hlrpfrm1";
/// Magic, length of the JSON text, checksum of the JSON text.
const PREFIX_BYTES: usize = 8 + 8 + 8;
/// Frames begin at a multiple of this.
const PAGE_BYTES: u64 = 4096;
/// Checksum of the episode's frames and status bytes, and a mark that the checksum was written.
pub(super) const RECORD_BYTES: u64 = 16;

/// Status byte of a frame that was decoded.
pub(super) const FRAME_OK: u8 = 1;
/// Status byte of a frame that could not be decoded.
pub(super) const FRAME_BAD: u8 = 2;

/// Where everything is in the file.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) header: Vec<u8>,
    pub(super) frame_bytes: u64,
    num_frames: u64,
    num_episodes: u64,
    /// Number of frames before each episode.
    pub(super) first_frames: Vec<u64>,
}

impl Layout {
    pub(super) fn of(spec: &CacheSpec) -> Self {
        let json = spec.identity.to_json();
        let mut header = Vec::with_capacity(PREFIX_BYTES + json.len());
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&(json.len() as u64).to_le_bytes());
        header.extend_from_slice(&xxh3_64(&json).to_le_bytes());
        header.extend_from_slice(&json);
        header.resize(header.len().next_multiple_of(PAGE_BYTES as usize), 0);
        let mut num_before = 0;
        let first_frames = spec
            .spans
            .iter()
            .map(|span| {
                let first = num_before;
                num_before += span.num_frames();
                first
            })
            .collect();
        let Identity { num_frames, num_episodes, .. } = spec.identity;
        Self { header, frame_bytes: spec.size().frame_bytes() as u64, num_frames, num_episodes, first_frames }
    }

    /// Bytes of frames `[first, first + num)`.
    pub(super) fn frames(&self, first: u64, num: u64) -> Range<u64> {
        let start = self.header.len() as u64 + first * self.frame_bytes;
        start..start + num * self.frame_bytes
    }

    /// Status bytes of frames `[first, first + num)`.
    pub(super) fn statuses(&self, first: u64, num: u64) -> Range<u64> {
        let start = self.frames(self.num_frames, 0).start + first;
        start..start + num
    }

    /// Record of an episode.
    pub(super) fn record(&self, episode: usize) -> Range<u64> {
        let start = self.statuses(self.num_frames, 0).start + episode as u64 * RECORD_BYTES;
        start..start + RECORD_BYTES
    }

    /// Length of the file.
    pub(super) fn file_len(&self) -> u64 {
        self.record(self.num_episodes as usize).start
    }

    /// Compares the header of a file with the expected one.
    pub(super) fn check_header(&self, found: &[u8], path: &Path) -> Result<(), DataError> {
        if found == self.header {
            return Ok(());
        }
        if found.get(..MAGIC.len()) != Some(MAGIC) {
            return Err(damaged(path, "is not a frame cache of this version"));
        }
        Err(damaged(path, "its header is damaged or is that of other frames"))
    }
}

/// The record of an episode with this checksum.
pub(super) fn encode_record(episode: usize, checksum: u64) -> [u8; RECORD_BYTES as usize] {
    let mut record = [0; RECORD_BYTES as usize];
    record[..8].copy_from_slice(&checksum.to_le_bytes());
    record[8..].copy_from_slice(&mark(episode, checksum).to_le_bytes());
    record
}

/// The checksum in a record; none when the record was not or not wholly written.
pub(super) fn decode_record(episode: usize, record: &[u8]) -> Option<u64> {
    let (checksum, written) = record.split_at_checked(8)?;
    let checksum = u64::from_le_bytes(checksum.try_into().ok()?);
    (u64::from_le_bytes(written.try_into().ok()?) == mark(episode, checksum)).then_some(checksum)
}

fn mark(episode: usize, checksum: u64) -> u64 {
    // Never zero in practice: zeros in a sparse file are no record.
    xxh3_64_with_seed(&checksum.to_le_bytes(), episode as u64 + 1)
}

/// A cache file that cannot be used.
pub(super) fn damaged(path: impl Into<PathBuf>, what: impl Into<String>) -> DataError {
    let hint = "move the file away; it is then built again from the dataset";
    DataError::File { path: path.into(), what: what.into(), hint: hint.to_owned() }
}
