//! Scores on disk: computed once for the same files and settings, under the cache root.

use super::Filter;
use crate::error::{DataError, INDEX_SPACE};
use hlrp_track::fs::{DiskRules, ensure_free, write_atomic};
use serde_json::Value;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// First bytes of a file: its format and version.
const MAGIC: &[u8; 8] = b"hlrpscr1";

/// The file of one kind of scores.
pub(super) struct ScoreFile {
    path: PathBuf,
}

impl ScoreFile {
    /// The file of the scores of a kind. Its name has a digest of the data's `fingerprints`, the episodes and the settings of the scores.
    pub(super) fn new(
        filter: &Filter<'_>,
        folder: &Path,
        kind: &str,
        settings: &Value,
        fingerprints: &[String],
    ) -> Self {
        let mut digest = Xxh3::new();
        digest.update(settings.to_string().as_bytes());
        fingerprints.iter().for_each(|fingerprint| digest.update(fingerprint.as_bytes()));
        for span in filter.spans {
            [span.episode, span.from_row, span.to_row].iter().for_each(|n| digest.update(&n.to_le_bytes()));
        }
        Self { path: folder.join(format!("{}-{kind}-{:032x}.f32", filter.name, digest.digest128())) }
    }

    /// The scores of the file; without it those that `compute` returns. They are written if it says that they are complete. Other processes
    /// that need the same scores wait for this one.
    pub(super) fn read_or(
        &self,
        disk: &DiskRules,
        compute: impl FnOnce() -> Result<(Vec<f32>, bool), DataError>,
    ) -> Result<Vec<f32>, DataError> {
        if self.path.exists() {
            return self.read();
        }
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(DataError::io(folder))?;
        let lock = self.path.with_extension("lock");
        let held = OpenOptions::new().create(true).append(true).open(&lock).map_err(DataError::io(&lock))?;
        held.lock().map_err(DataError::io(&lock))?;
        if self.path.exists() {
            return self.read();
        }
        let (scores, is_complete) = compute()?;
        if is_complete {
            self.write(&scores, disk)?;
        }
        Ok(scores)
    }

    fn write(&self, scores: &[f32], disk: &DiskRules) -> Result<(), DataError> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(scores.iter().flat_map(|score| score.to_le_bytes()));
        bytes.extend(xxh3_64(&bytes).to_le_bytes());
        let space = DataError::space(INDEX_SPACE);
        ensure_free(&self.path, bytes.len() as u64, disk).map_err(space)?;
        write_atomic(&self.path, bytes).map_err(space)
    }

    fn read(&self) -> Result<Vec<f32>, DataError> {
        let bytes = fs::read(&self.path).map_err(DataError::io(&self.path))?;
        let damaged =
            || DataError::file(&self.path, "the scores are damaged", "move the file away: they are computed again");
        let (contents, digest) = bytes.split_last_chunk::<8>().ok_or_else(damaged)?;
        let scores = contents.strip_prefix(MAGIC).filter(|_| xxh3_64(contents).to_le_bytes() == *digest);
        let scores = scores.ok_or_else(damaged)?.as_chunks::<4>().0;
        Ok(scores.iter().map(|score| f32::from_le_bytes(*score)).collect())
    }
}
