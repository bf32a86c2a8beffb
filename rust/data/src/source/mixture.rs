//! All sources of a run, with the anchors of both splits.

use super::{SampleLayout, Source, lerobot::Opener};
use crate::{AnchorTable, DataError, FrameSize, LoadError};
use hlrp_schema::{DataConfig, LoaderConfig};
use std::{
    iter,
    num::NonZeroUsize,
    panic::resume_unwind,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

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
        let opener = Opener::new(config, size, progress);
        let sources: Vec<_> = config.sources.iter().collect();
        let opened = in_parallel(&sources, |(name, source)| opener.open(name, source));
        let sources = opened.into_iter().collect::<Result<_, _>>()?;
        Self::new(sources, size, config.loader.clone())
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

/// What `make` gives for each item, in order, made by as many threads as there are cores.
fn in_parallel<T: Sync, R: Send>(items: &[T], make: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let num_threads = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(items.len());
    let next = AtomicUsize::new(0);
    let work = || {
        let claim = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&number| number < items.len());
        iter::from_fn(claim).map(|number| (number, make(&items[number]))).collect::<Vec<_>>()
    };
    let mut made: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..num_threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    });
    made.sort_by_key(|(number, _)| *number);
    made.into_iter().map(|(_, result)| result).collect()
}

/// Refuses settings with which no loader can run.
fn check(loader: &LoaderConfig) -> Result<(), DataError> {
    let at_least_one = [
        ("batch_size", loader.batch_size),
        ("anchors_per_clip", loader.anchors_per_clip),
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
