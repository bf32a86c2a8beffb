//! What the tests of loaders over real formats share: the settings of a loader, and how a mixture is opened.
#![allow(unreachable_pub)] // shared between programs

use hlrp_data::{DataError, FrameSize, Mixture};
use hlrp_schema::{DataConfig, LoaderConfig, UniformOver};
use std::sync::Arc;

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
        max_open_decoders: 4,
        max_bad_samples: 0,
    }
}

/// Opens the sources of a configuration with frames of `size`.
pub fn open(config: &DataConfig, size: FrameSize) -> Result<Arc<Mixture>, DataError> {
    Mixture::open(config, size, &hlrp_data::DiskRules::unlimited(), &|_, _, _, _| {}).map(Arc::new)
}
