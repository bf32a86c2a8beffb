//! All sources of a run, with the anchors of both splits.

use super::{SampleLayout, Source, lerobot::Opener};
use crate::{AnchorTable, DataError, FrameSize, LoadError};
use hlrp_config::schema::{DataConfig, LoaderConfig};
use std::{panic::resume_unwind, thread};

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
        let opener = &Opener::new(config, size, progress);
        let sources = thread::scope(|scope| {
            let sources = config.sources.iter();
            let threads: Vec<_> =
                sources.map(|(name, source)| scope.spawn(move || opener.open(name, source))).collect();
            let joined = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
            joined.collect::<Result<_, _>>()
        })?;
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
