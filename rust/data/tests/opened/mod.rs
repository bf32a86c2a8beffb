//! What tests that configure data share: a source, the settings of a loader, and how a mixture is opened.
#![allow(unreachable_pub, dead_code)] // shared between programs

use hlrp_data::{DataError, FrameSize, Mixture};
use hlrp_schema::{DataConfig, LoaderConfig, SourceConfig, UniformOver};
use std::{path::Path, sync::Arc};

/// All of a dataset for training: the images of one camera, with neither states nor actions.
pub fn source(root: &Path, camera: &str) -> SourceConfig {
    SourceConfig {
        root: Some(root.to_owned()),
        repo_id: None,
        revision: None,
        streaming: None,
        cameras: [("primary".to_owned(), camera.to_owned())].into(),
        state_key: None,
        action_key: None,
        weight: None,
        span: None,
        episodes: None,
        exclude_episodes: None,
        num_val_episodes: 0,
        val_episodes: None,
        tolerance_s: None,
        labelled_episodes: None,
        filter: None,
        rlds: None,
        scenes: None,
    }
}

/// A loader of two threads that ends at the first bad sample.
pub fn loader(batch_size: usize) -> LoaderConfig {
    LoaderConfig {
        batch_size,
        anchors_per_clip: 1,
        labelled_fraction: None,
        uniform_over: UniformOver::Anchors,
        mixing_block: 8,
        num_workers: 2,
        prefetch_batches: 2,
        memory_budget_mb: 64,
        table_cache_mb: 64,
        stream_cache_mb: 64,
        max_open_decoders: 4,
        max_bad_samples: 0,
    }
}

/// Opens the sources of a configuration with frames of `size`.
pub fn open(config: &DataConfig, size: FrameSize) -> Result<Arc<Mixture>, DataError> {
    Mixture::open(config, size, &hlrp_data::DiskRules::unlimited(), &|_, _, _, _| {}).map(Arc::new)
}
