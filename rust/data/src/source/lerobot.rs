//! LeRobot v3 datasets as sources.

use super::{CacheProgress, SampleRows, Source, chosen_episodes};
use crate::{
    BuildOptions, CacheSpec, DataError, EpisodeSpan, FrameCache, FrameSize, FrameStore, PREPROCESS_ID,
    lerobot::{Dataset, Episode},
};
use hlrp_config::schema::{DataConfig, SourceConfig};
use std::{collections::BTreeMap, sync::Arc};

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

impl Source {
    /// Binds an open dataset to its configuration, with frames from the videos or from the frame cache.
    pub(super) fn of_dataset(
        name: &str,
        config: &SourceConfig,
        data: &DataConfig,
        dataset: Arc<Dataset>,
        size: FrameSize,
        progress: &CacheProgress<'_>,
    ) -> Result<Self, DataError> {
        let frames = |(role, key): (&String, &String)| {
            let frames: Arc<dyn FrameStore> = if data.cache.enabled {
                Arc::new(cached(name, config, data, &dataset, key, size, &|done, total| progress(name, role, done, total))?)
            } else {
                Arc::from(dataset.frame_store(key, Some(size))?)
            };
            Ok((role.clone(), frames))
        };
        let cameras = config.cameras.iter().map(frames).collect::<Result<BTreeMap<_, _>, DataError>>()?;
        Self::new(name, config, &data.request, dataset, cameras)
    }
}

/// The frame cache of one camera, built where it is not there.
fn cached(
    name: &str,
    config: &SourceConfig,
    data: &DataConfig,
    dataset: &Arc<Dataset>,
    key: &str,
    size: FrameSize,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<FrameCache, DataError> {
    dataset.camera(key)?;
    let spans = chosen_episodes(name, config, dataset.as_ref())?;
    let spec = CacheSpec::new(&config.root, key, size, PREPROCESS_ID, spans)?;
    let options = BuildOptions {
        num_workers: data.loader.num_workers,
        max_open_decoders: data.loader.max_open_decoders,
        max_bad_frames: data.loader.max_bad_samples as u64,
        progress,
    };
    let cache = FrameCache::open_or_build(&data.cache.dir, &spec, || dataset.frame_store(key, Some(size)), &options)?;
    if data.cache.verify {
        cache.verify(progress)?;
    }
    Ok(cache)
}
