//! All sources of a run, with the anchors of both splits.

use crate::anchors::AnchorTable;
use crate::cache::{BuildOptions, CacheSpec, FrameCache};
use crate::error::DataError;
use crate::formats::{self, OpenOptions, TableCache};
use crate::frames::{FrameSize, FrameStore};
use crate::lock::lock;
use crate::resize::PREPROCESS_ID;
use crate::source::{Source, Split, check_features, chosen_episodes};
use hlrp_config::Problem;
use hlrp_schema::{DataConfig, LoaderConfig, RequestConfig, SourceConfig};
use std::{
    collections::BTreeMap,
    iter,
    panic::resume_unwind,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Receives how far the building of a frame cache is: name of the source, role, frames done, frames in all.
pub type CacheProgress<'a> = dyn Fn(&str, &str, u64, u64) + Sync + 'a;

/// Logs how far the building of a frame cache is; a [`CacheProgress`].
pub fn log_cache_progress(source: &str, role: &str, num_done: u64, num_total: u64) {
    tracing::info!("frame cache of {source}/{role}: {num_done} of {num_total} frames");
}

/// Sizes of a sample: the same for every sample of a mixture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleLayout {
    /// Camera roles, sorted.
    pub roles: Vec<String>,
    /// Images per role.
    pub num_images: usize,
    /// Size of an image.
    pub size: FrameSize,
    /// States `[T,N]`, when every source has them; N is the widest.
    pub state: Option<[usize; 2]>,
    /// Actions `[T,N]`, when every source has them; N is the widest.
    pub action: Option<[usize; 2]>,
}

impl SampleLayout {
    /// The layout that all sources share.
    fn of(sources: &[Source], size: FrameSize) -> Result<Self, Problem> {
        let Some(first) = sources.first() else {
            return Err(Problem::new(
                "data.sources",
                "no source of data",
                "add one: data.sources.<name>.root=<folder>",
            ));
        };
        for source in sources {
            if let Some(missing) = differing_role(first, source) {
                let key = format!("data.sources.{}.cameras", source.name);
                let message = format!("roles differ from source `{}`: `{missing}` is in one of them only", first.name);
                return Err(Problem::new(key, message, "map every role in every source"));
            }
        }
        let block = |num_steps: usize, width: Option<usize>| width.map(|width| [num_steps, width]);
        let (states, actions) = (first.request.state_deltas.len(), first.request.action_deltas.len());
        Ok(Self {
            roles: first.cameras.keys().cloned().collect(),
            num_images: first.request.image_deltas.len(),
            size,
            state: block(states, widest(sources, |s| s.state.as_ref().map(|v| v.width))),
            action: block(actions, widest(sources, |s| s.action.as_ref().map(|v| v.width))),
        })
    }

    /// Bytes of the images of one role of one sample.
    #[must_use]
    pub fn image_bytes(&self) -> usize {
        self.num_images * self.size.frame_bytes()
    }

    /// Bytes of one sample.
    #[must_use]
    pub fn sample_bytes(&self) -> usize {
        let vectors = [self.state, self.action].into_iter().flatten().map(|[t, n]| t * (n * size_of::<f32>() + 1));
        self.roles.len() * (self.image_bytes() + self.num_images) + vectors.sum::<usize>()
    }
}

/// The first role that only one of two sources has.
fn differing_role<'a>(a: &'a Source, b: &'a Source) -> Option<&'a str> {
    let only_in = |x: &'a Source, y: &Source| x.cameras.keys().find(|role| !y.cameras.contains_key(*role));
    only_in(a, b).or_else(|| only_in(b, a)).map(String::as_str)
}

/// The widest of a vector that every source has.
fn widest(sources: &[Source], of: impl Fn(&Source) -> Option<usize>) -> Option<usize> {
    sources.iter().map(of).collect::<Option<Vec<_>>>()?.into_iter().max()
}

/// All sources of a run. Opened once, shared by the loaders of training and validation.
pub struct Mixture {
    pub(crate) sources: Vec<Source>,
    pub(crate) layout: SampleLayout,
    pub(crate) train: AnchorTable,
    pub(crate) validation: AnchorTable,
    pub(crate) loader: LoaderConfig,
}

impl Mixture {
    /// Opens every dataset of `config`, a checked section; frames are delivered in `size`. Builds missing frame caches when
    /// `config.cache` is on.
    ///
    /// # Errors
    /// A dataset, an episode, a camera or a feature is missing or broken, or settings do not go together.
    pub fn open(config: &DataConfig, size: FrameSize, progress: &CacheProgress<'_>) -> Result<Self, DataError> {
        let opener = Opener {
            data: config,
            size,
            progress,
            tables: TableCache::new(config.loader.table_cache_mb << 20),
            building: Mutex::new(()),
        };
        let sources: Vec<_> = config.sources.iter().collect();
        let opened = in_parallel(&sources, |(name, source)| opener.open(name, source));
        let sources = opened.into_iter().collect::<Result<_, _>>()?;
        Self::new(sources, size, config.loader.clone())
    }

    /// Puts opened sources together; `loader` is a checked section.
    ///
    /// # Errors
    /// [`Problem`] when sources differ in their camera roles.
    pub fn new(sources: Vec<Source>, size: FrameSize, loader: LoaderConfig) -> Result<Self, DataError> {
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

    /// The same sources with samples of other offsets; nothing is opened again.
    ///
    /// # Errors
    /// [`Problem`] with the key of an offset that is not a whole number of frames.
    pub fn with_request(&self, request: &RequestConfig) -> Result<Self, DataError> {
        let sources = self.sources.iter().map(|source| source.with_request(request)).collect::<Result<_, _>>()?;
        Self::new(sources, self.layout.size, self.loader.clone())
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

    /// Refuses a split without any sample.
    ///
    /// # Errors
    /// [`Problem`] with the key that has to change.
    pub fn require(&self, split: Split) -> Result<(), Problem> {
        let num_episodes: usize = self.sources.iter().map(|source| source.episodes(split).len()).sum();
        let (key, message, hint) = match (self.anchors(split).is_empty(), num_episodes) {
            (false, _) => return Ok(()),
            (true, 0) => ("data.sources", "has no episode", "raise data.sources.<name>.num_val_episodes"),
            (true, _) => (
                "data.request.image_deltas",
                "has no sample: every episode is shorter than the offsets reach",
                "use smaller offsets, more episodes, or another data.sources.<name>.num_val_episodes",
            ),
        };
        Err(Problem::new(key, format!("the {} set {message}", split.name()), hint))
    }
}

/// What opening the sources of one run has in common.
struct Opener<'a> {
    data: &'a DataConfig,
    size: FrameSize,
    progress: &'a CacheProgress<'a>,
    tables: Arc<TableCache>,
    /// Sources are opened at the same time, but frame caches are built one after the other, each with all decode threads.
    building: Mutex<()>,
}

impl Opener<'_> {
    /// Opens a dataset and binds it to its configuration.
    fn open(&self, name: &str, config: &SourceConfig) -> Result<Source, DataError> {
        let options = OpenOptions { tables: Arc::clone(&self.tables), tolerance_s: config.tolerance_s };
        let dataset = formats::open(&config.root, &options)?;
        check_features(name, config, dataset.describe())?;
        let mut cameras = BTreeMap::new();
        for (role, key) in &config.cameras {
            let decoded = || Arc::clone(&dataset).frame_store(key, Some(self.size));
            let frames: Arc<dyn FrameStore> = if self.data.cache.enabled {
                let spans = chosen_episodes(name, config, &*dataset)?;
                let folder = config.root.canonicalize().map_err(DataError::io(&config.root))?;
                let folder = folder.file_name().map_or_else(|| "dataset".into(), |name| name.to_string_lossy());
                let fingerprint = &dataset.describe().fingerprint;
                let spec = CacheSpec::new(&folder, fingerprint, key, self.size, PREPROCESS_ID, spans)
                    .with_tolerance(config.tolerance_s);
                Arc::new(self.cached(&spec, decoded, &|done, total| (self.progress)(name, role, done, total))?)
            } else {
                Arc::from(decoded()?)
            };
            cameras.insert(role.clone(), frames);
        }
        Source::new(name, config, &self.data.request, dataset, cameras)
    }

    /// A frame cache, built if it does not exist.
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

/// What `make` returns for each item, in order, on as many threads as there are cores.
pub(crate) fn in_parallel<T: Sync, R: Send>(items: &[T], make: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let num_threads = hlrp_track::host::num_cores().min(items.len());
    let next = AtomicUsize::new(0);
    let work = || {
        let claim = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&index| index < items.len());
        iter::from_fn(claim).map(|index| (index, make(&items[index]))).collect::<Vec<_>>()
    };
    let mut made: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..num_threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    });
    made.sort_by_key(|(index, _)| *index);
    made.into_iter().map(|(_, result)| result).collect()
}
