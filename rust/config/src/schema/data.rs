//! Section `data`.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// Datasets, what a sample holds, and how it is loaded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Datasets by name.
    pub sources: BTreeMap<String, SourceConfig>,
    /// What a sample holds.
    pub request: RequestConfig,
    /// How batches are made.
    pub loader: LoaderConfig,
    /// The frame cache.
    pub cache: CacheConfig,
}

/// One LeRobot v3 dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// Folder of the dataset.
    pub root: PathBuf,
    /// Role of an image stream to feature key.
    pub cameras: BTreeMap<String, String>,
    /// Feature key of the state; none when null.
    pub state_key: Option<String>,
    /// Feature key of the action; none when null.
    pub action_key: Option<String>,
    /// Episode indices in use; all when null.
    pub episodes: Option<Vec<u64>>,
    /// Episodes held out for validation, spread evenly over those in use.
    pub num_val_episodes: u64,
}

/// Unit of time offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeltaUnit {
    /// Dataset frames.
    Frames,
    /// Seconds; each must be a whole number of frames within the format's tolerance.
    Seconds,
}

/// Offsets of what a sample holds, relative to its anchor frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestConfig {
    /// Unit of all offsets.
    pub unit: DeltaUnit,
    /// Offsets of the images of every camera role.
    pub image_deltas: Vec<f64>,
    /// Offsets of the states.
    pub state_deltas: Vec<f64>,
    /// Offsets of the actions.
    pub action_deltas: Vec<f64>,
}

/// How batches are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderConfig {
    /// Samples per batch and rank.
    pub batch_size: usize,
    /// Neighbouring anchors that are decoded together and go into as many successive batches.
    pub anchors_per_clip: usize,
    /// Decode threads.
    pub num_workers: usize,
    /// Batches that are made ahead of the trainer.
    pub prefetch_batches: usize,
    /// MiB of samples in flight and of the clips that they come from.
    pub memory_budget_mb: usize,
    /// MiB of state, action and task columns that stay in memory.
    pub table_cache_mb: usize,
    /// Open video files per decode thread.
    pub max_open_decoders: usize,
    /// Samples that may fail before the run stops.
    pub max_bad_samples: usize,
}

/// The frame cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheConfig {
    /// Whether frames are read from the cache (and it is built first).
    pub enabled: bool,
    /// Folder of all frame caches.
    pub dir: PathBuf,
    /// Whether every frame is compared with its checksum when a cache is opened.
    pub verify: bool,
}
