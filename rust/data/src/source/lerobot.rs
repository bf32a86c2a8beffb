//! LeRobot v3 datasets as sources.

use super::{CacheProgress, SampleRows, Source, chosen_episodes};
use crate::{
    BuildOptions, CacheSpec, DataError, EpisodeSpan, FrameCache, FrameSize, FrameStore, PREPROCESS_ID,
    lerobot::{Dataset, Episode, TableCache},
    lock::lock,
};
use hlrp_schema::{DataConfig, SourceConfig};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

impl SampleRows for Dataset {
    fn fps(&self) -> f64 {
        Self::fps(self)
    }

    fn episodes(&self) -> Vec<EpisodeSpan> {
        let span = |e: &Episode| EpisodeSpan { episode: e.index, from_row: e.from_row, to_row: e.to_row };
        Self::episodes(self).iter().map(span).collect()
    }

    fn vector_width(&self, key: &str) -> Result<usize, DataError> {
        Self::vector_width(self, key)
    }

    fn read_vectors(&self, key: &str, rows: &[u64], out_TN: &mut [f32]) -> Result<(), DataError> {
        Self::read_vectors(self, key, rows, out_TN)
    }

    fn task(&self, row: u64) -> Result<String, DataError> {
        self.task_text(row).map(str::to_owned)
    }
}

/// What opening the sources of one run has in common.
pub(super) struct Opener<'a> {
    data: &'a DataConfig,
    size: FrameSize,
    progress: &'a CacheProgress<'a>,
    tables: Arc<TableCache>,
    /// Sources are opened at the same time, but frame caches are built one after the other, each with all decode threads.
    building: Mutex<()>,
}

impl<'a> Opener<'a> {
    pub(super) fn new(data: &'a DataConfig, size: FrameSize, progress: &'a CacheProgress<'a>) -> Self {
        let tables = TableCache::new(data.loader.table_cache_mb << 20);
        Self { data, size, progress, tables, building: Mutex::new(()) }
    }

    /// Opens a dataset and binds it to its configuration.
    pub(super) fn open(&self, name: &str, config: &SourceConfig) -> Result<Source, DataError> {
        let dataset = Arc::new(Dataset::open(&config.root, &self.tables)?);
        let mut cameras = BTreeMap::new();
        for (role, key) in &config.cameras {
            let frames: Arc<dyn FrameStore> = if self.data.cache.enabled {
                dataset.camera(key)?;
                let spec = CacheSpec::new(
                    &config.root,
                    key,
                    self.size,
                    PREPROCESS_ID,
                    chosen_episodes(name, config, &*dataset)?,
                )?;
                let decoded = || dataset.frame_store(key, Some(self.size));
                Arc::new(self.cached(&spec, decoded, &|done, total| (self.progress)(name, role, done, total))?)
            } else {
                Arc::from(dataset.frame_store(key, Some(self.size))?)
            };
            cameras.insert(role.clone(), frames);
        }
        Source::new(name, config, &self.data.request, dataset, cameras)
    }

    /// A frame cache, built where it is not there.
    fn cached(
        &self,
        spec: &CacheSpec,
        decoded: impl FnOnce() -> Result<Box<dyn FrameStore>, DataError>,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<FrameCache, DataError> {
        let _turn = lock(&self.building);
        let options = BuildOptions {
            num_workers: self.data.loader.num_workers,
            max_open_decoders: self.data.loader.max_open_decoders,
            max_bad_frames: self.data.loader.max_bad_samples as u64,
            progress,
        };
        let cache = FrameCache::open_or_build(&self.data.cache.dir, spec, decoded, &options)?;
        if self.data.cache.verify {
            cache.verify(progress)?;
        }
        Ok(cache)
    }
}
