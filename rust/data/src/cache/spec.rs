//! What one frame cache contains, and its path.

use crate::error::DataError;
use crate::formats::Dataset;
use crate::frames::FrameSize;
use crate::request::EpisodeSpan;
use crate::resize::PREPROCESS_ID;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// What one frame cache contains. Caches with equal contents share a file.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheSpec {
    /// Facts that name the contents.
    pub(super) identity: Identity,
    /// Episodes whose frames it contains, in this order.
    pub(super) spans: Vec<EpisodeSpan>,
    /// Name of the dataset's folder.
    name: String,
}

/// Facts that name the contents of a cache; written into its header.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    format: u32,
    /// Fingerprint of the frames: see [`crate::formats::Dataset::fingerprint_of_frames`].
    dataset: String,
    camera: String,
    pub(super) height: usize,
    pub(super) width: usize,
    preprocess: String,
    /// See [`CacheSpec::with_tolerance`].
    tolerance_s: Option<f64>,
    pub(super) num_episodes: u64,
    pub(super) num_frames: u64,
    episodes_hash: String,
}

/// Version of the file layout and of how frames are decoded.
const FORMAT: u32 = 3;

impl CacheSpec {
    /// The frames of `camera` in the episodes `spans` of a dataset, prepared to `size` as everything here prepares them. `name` is the
    /// dataset's folder.
    ///
    /// # Errors
    /// As [`Dataset::fingerprint_of_frames`].
    pub fn of(
        dataset: &dyn Dataset,
        name: &str,
        camera: &str,
        size: FrameSize,
        spans: Vec<EpisodeSpan>,
    ) -> Result<Self, DataError> {
        let fingerprint = dataset.fingerprint_of_frames(camera, &spans)?;
        Ok(Self::new(name, &fingerprint, camera, size, PREPROCESS_ID, spans))
    }

    /// The frames with this fingerprint: of `camera`, in the episodes `spans`, prepared to `size` in the way that
    /// `preprocess` names. `name` is the dataset's folder and begins the name of the file.
    #[must_use]
    pub fn new(
        name: &str,
        fingerprint: &str,
        camera: &str,
        size: FrameSize,
        preprocess: &str,
        spans: Vec<EpisodeSpan>,
    ) -> Self {
        let mut episodes = Xxh3::new();
        for span in &spans {
            [span.episode, span.from_row, span.to_row].iter().for_each(|n| episodes.update(&n.to_le_bytes()));
        }
        let identity = Identity {
            format: FORMAT,
            dataset: fingerprint.to_owned(),
            camera: camera.to_owned(),
            height: size.height,
            width: size.width,
            preprocess: preprocess.to_owned(),
            tolerance_s: None,
            num_episodes: spans.len() as u64,
            num_frames: spans.iter().map(EpisodeSpan::num_frames).sum(),
            episodes_hash: hex(episodes.digest128()),
        };
        Self { identity, spans, name: name.to_owned() }
    }

    /// The same frames, found with the tolerance of the source ([`hlrp_schema::SourceConfig::tolerance_s`]).
    #[must_use]
    pub fn with_tolerance(mut self, tolerance_s: Option<f64>) -> Self {
        self.identity.tolerance_s = tolerance_s;
        self
    }

    /// Path of the finished cache under `dir`.
    #[must_use]
    pub fn path(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.frames", self.stem()))
    }

    /// Path of an unfinished cache under `dir`.
    #[must_use]
    pub fn partial_path(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.partial", self.stem()))
    }

    /// The file that a building process locks.
    pub(super) fn lock_path(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.lock", self.stem()))
    }

    /// Size of a frame.
    #[must_use]
    pub fn size(&self) -> FrameSize {
        FrameSize { height: self.identity.height, width: self.identity.width }
    }

    fn stem(&self) -> String {
        format!("{}-{}", self.name, &hex(xxh3_128(&self.identity.to_json()))[..16])
    }
}

impl Identity {
    pub(super) fn to_json(&self) -> Vec<u8> {
        // A struct of strings and numbers always serializes.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

fn hex(hash: u128) -> String {
    format!("{hash:032x}")
}
