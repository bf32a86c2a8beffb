//! All sources of a run, with the anchors of both splits.

use super::{SampleLayout, Source};
use crate::{
    AnchorTable, DataError, FrameSize, LoadError,
    lerobot::{Dataset, TableCache},
};
use hlrp_config::schema::{DataConfig, LoaderConfig};
use std::{panic::resume_unwind, sync::Arc, thread};

/// Which episodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Those to train on.
    Train,
    /// Those held out.
    Validation,
}

/// Told how far the building of a frame cache is: name of the source, role, frames done, frames in all.
pub type CacheProgress<'a> = dyn Fn(&str, &str, u64, u64) + Sync + 'a;

/// All sources of a run. Opened once, shared by the loaders of training and validation.
pub struct Mixture {
    pub(crate) sources: Vec<Source>,
    pub(crate) layout: SampleLayout,
    pub(crate) train: AnchorTable,
    pub(crate) validation: AnchorTable,
    pub(crate) loader: LoaderConfig,
}

impl Mixture {
    /// Opens every dataset of `config`; frames are delivered in `size`. Builds missing frame caches when `config.cache` is on.
    ///
    /// # Errors
    /// A dataset, an episode, a camera or a feature is missing or broken; settings contradict each other.
    pub fn open(config: &DataConfig, size: FrameSize, progress: &CacheProgress<'_>) -> Result<Self, DataError> {
        check(&config.loader)?;
        let tables = TableCache::new(config.loader.table_cache_mb << 20);
        let datasets = open_datasets(config, &tables)?;
        let sources = config.sources.iter().zip(datasets);
        let sources = sources.map(|((name, source), dataset)| {
            Source::of_dataset(name, source, config, Arc::new(dataset), size, progress)
        });
        Self::new(sources.collect::<Result<_, _>>()?, size, config.loader.clone())
    }

    /// Puts opened sources together.
    ///
    /// # Errors
    /// Sources differ in their camera roles, or a loader setting is out of range.
    pub fn new(sources: Vec<Source>, size: FrameSize, loader: LoaderConfig) -> Result<Self, DataError> {
        check(&loader)?;
        let layout = SampleLayout::of(&sources, size)?;
        let anchors = |split| {
            let mut table = AnchorTable::new();
            for source in &sources {
                table.push_source(source.episodes(split).iter().copied(), source.request.image_reach());
            }
            table
        };
        Ok(Self { train: anchors(Split::Train), validation: anchors(Split::Validation), sources, layout, loader })
    }

    /// The sources, in the order of their names.
    #[must_use]
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Sizes of a sample.
    #[must_use]
    pub fn layout(&self) -> &SampleLayout {
        &self.layout
    }

    /// Anchors of one split.
    #[must_use]
    pub fn anchors(&self, split: Split) -> &AnchorTable {
        match split {
            Split::Train => &self.train,
            Split::Validation => &self.validation,
        }
    }
}

/// Reads the metadata of all datasets at the same time.
fn open_datasets(config: &DataConfig, tables: &Arc<TableCache>) -> Result<Vec<Dataset>, DataError> {
    thread::scope(|scope| {
        let threads: Vec<_> =
            config.sources.values().map(|source| scope.spawn(|| Dataset::open(&source.root, tables))).collect();
        let joined = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        joined.collect()
    })
}

/// Refuses settings with which no loader can run.
fn check(loader: &LoaderConfig) -> Result<(), DataError> {
    let at_least_one = [
        ("batch_size", loader.batch_size),
        ("num_workers", loader.num_workers),
        ("prefetch_batches", loader.prefetch_batches),
        ("memory_budget_mb", loader.memory_budget_mb),
        ("max_open_decoders", loader.max_open_decoders),
    ];
    for (name, value) in at_least_one {
        if value == 0 {
            return Err(
                LoadError::setting(&format!("data.loader.{name}"), "0 is too small", "set it to 1 or more").into()
            );
        }
    }
    Ok(())
}
