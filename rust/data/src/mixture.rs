//! All sources of a run, with the anchors of both splits.

use crate::anchors::AnchorTable;
use crate::cache::{BuildOptions, CacheSpec, FrameCache};
use crate::error::DataError;
use crate::filter::{Filter, VerdictCounts};
use crate::formats::{self, Dataset, OpenOptions, TableCache};
use crate::frames::{FrameSize, FrameStore};
use crate::hub::{Hub, Location, Streams, locate, require_files};
use crate::lock::lock;
use crate::parallel::in_parallel;
use crate::request::{EpisodeSpan, LabelRequest, differing_seconds};
use crate::sampler::{Mixing, Pool};
use crate::shares;
use crate::source::{Source, Split, VectorKey, check_features, check_section, chosen_episodes};
use hlrp_config::Problem;
use hlrp_schema::{
    DataConfig, FilterBy, FilterConfig, LoaderConfig, RequestConfig, Resize, SourceConfig, SourceWeight, UniformOver,
};
use hlrp_track::fs::DiskRules;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};
use xxhash_rust::xxh3::xxh3_64;

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
    /// Size of an image, as it was asked for.
    pub size: FrameSize,
    /// By role the size in which images are loaded: another one where the device resizes them.
    pub loaded: Vec<FrameSize>,
    /// States `[T,N]`, where a source has them; N is the widest.
    pub state: Option<[usize; 2]>,
    /// Actions `[T,N]`, where a source has them; T is the longest and N the widest.
    pub action: Option<[usize; 2]>,
    /// By key the labels `[T,N]` that were asked for.
    pub labels: BTreeMap<String, [usize; 2]>,
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
        let loaded = first.cameras.iter().map(|(role, camera)| loaded_size(role, camera.size(), sources));
        let block = |num_steps: usize, width: Option<usize>| width.map(|width| [num_steps, width]);
        let longest = |of: fn(&Source) -> usize| sources.iter().map(of).max().unwrap_or_default();
        let states = longest(|source| source.request.state_deltas.len());
        let actions = longest(|source| source.request.action_deltas.len());
        Ok(Self {
            roles: first.cameras.keys().cloned().collect(),
            num_images: first.request.image_deltas.len(),
            size,
            loaded: loaded.collect::<Result<_, _>>()?,
            state: block(states, widest(sources, |s| s.state.as_ref().map(|v| v.width))),
            action: block(actions, widest(sources, |s| s.action.as_ref().map(|v| v.width))),
            labels: labels(sources)?,
        })
    }

    /// Bytes of the images of one sample, by role.
    pub fn image_bytes(&self) -> impl Iterator<Item = usize> {
        self.loaded.iter().map(|size| self.num_images * size.frame_bytes())
    }

    /// Bytes of one sample.
    #[must_use]
    pub fn sample_bytes(&self) -> usize {
        let vectors = [self.state, self.action].into_iter().flatten().chain(self.labels.values().copied());
        let vectors = vectors.map(|[t, n]| t * (n * size_of::<f32>() + 1));
        self.image_bytes().sum::<usize>() + self.roles.len() * self.num_images + vectors.sum::<usize>()
    }
}

/// The first role that only one of two sources has.
fn differing_role<'a>(a: &'a Source, b: &'a Source) -> Option<&'a str> {
    let only_in = |x: &'a Source, y: &Source| x.cameras.keys().find(|role| !y.cameras.contains_key(*role));
    only_in(a, b).or_else(|| only_in(b, a)).map(String::as_str)
}

/// The size in which all sources load the images of a role, which is that of the first.
fn loaded_size(role: &str, size: FrameSize, sources: &[Source]) -> Result<FrameSize, Problem> {
    let differing = sources.iter().find(|source| source.cameras.get(role).is_some_and(|camera| camera.size() != size));
    differing.map_or(Ok(size), |source| {
        let other = source.cameras[role].size();
        let message = format!(
            "`{role}` of source `{}` has {}x{} pixels, that of source `{}` {}x{}: a batch has images of one size",
            source.name, other.width, other.height, sources[0].name, size.width, size.height
        );
        Err(Problem::new("data.resize", message, "set it to host"))
    })
}

/// The widest of a vector; none where no source has it.
fn widest(sources: &[Source], of: impl Fn(&Source) -> Option<usize>) -> Option<usize> {
    sources.iter().filter_map(of).max()
}

/// Labels `[T,N]` by key; those of all sources have the same widths.
fn labels(sources: &[Source]) -> Result<BTreeMap<String, [usize; 2]>, Problem> {
    let mut labels = BTreeMap::new();
    for source in sources {
        for VectorKey { key, width } in &source.labels {
            let size = [source.request.label_deltas.len(), *width];
            let known = *labels.entry(key.clone()).or_insert(size);
            if known != size {
                let message = format!("`{key}` has {width} values, but {} in another source", known[1]);
                let hint = "label all sources with the same checkpoint";
                return Err(Problem::new(format!("data.sources.{}.{}", source.name, source.place_key), message, hint));
            }
        }
    }
    Ok(labels)
}

/// All sources of a run. Opened once, shared by the loaders of training and validation.
pub struct Mixture {
    pub(crate) sources: Vec<Source>,
    pub(crate) layout: SampleLayout,
    /// Where samples are balanced by their labels, those of labelled episodes first.
    pub(crate) train: AnchorTable,
    /// Anchors of labelled episodes, where samples are balanced by their labels.
    pub(crate) num_labelled: Option<u64>,
    pub(crate) validation: AnchorTable,
    /// Fraction of the training samples of each source.
    pub(crate) shares: Vec<f64>,
    /// The order of sources in fixed shares; none where every anchor occurs once in each epoch.
    pub(crate) mixing: Option<Arc<Mixing>>,
    pub(crate) loader: LoaderConfig,
}

impl Mixture {
    /// Opens every dataset of `config`, a checked section, for images of `size`, into which they are resized where `config.resize` says. Builds missing frame caches when
    /// `config.cache` is on, and leaves free what `disk` says.
    ///
    /// # Errors
    /// A dataset, an episode, a camera or a feature is missing or broken, or settings do not go together.
    pub fn open(
        config: &DataConfig,
        size: FrameSize,
        disk: &DiskRules,
        progress: &CacheProgress<'_>,
    ) -> Result<Self, DataError> {
        let opener = Opener {
            data: config,
            size,
            disk,
            progress,
            tables: TableCache::new(config.loader.table_cache_mb << 20),
            streams: streams(config)?,
            building: Mutex::new(()),
        };
        let sources: Vec<_> = config.sources.iter().collect();
        let open = |&(name, source): &(&String, &SourceConfig)| {
            opener.open(name, source).map_err(|error| error.of_source(name))
        };
        let opened = in_parallel(&sources, open);
        let sources: Vec<Source> = opened.into_iter().collect::<Result<_, _>>()?;
        let weights: Vec<_> = sources.iter().map(|source| source.weight).collect();
        let nothing_left = shares::warning(&weights).filter(|_| config.loader.is_mixed(&weights));
        let differing = differing_seconds(&config.request, &sources.iter().map(Source::timing).collect::<Vec<_>>());
        for warning in differing.iter().chain(&nothing_left) {
            tracing::warn!("{warning}");
        }
        Self::new(sources, size, config.loader.clone())
    }

    /// Puts opened sources together; `loader` is a checked section.
    ///
    /// # Errors
    /// [`Problem`] when sources differ in their camera roles, or in the sizes of their images.
    pub fn new(sources: Vec<Source>, size: FrameSize, loader: LoaderConfig) -> Result<Self, DataError> {
        let layout = SampleLayout::of(&sources, size)?;
        let push = |table: &mut AnchorTable, split, is_chosen: &dyn Fn(&Source, &EpisodeSpan) -> bool| {
            for (index, source) in sources.iter().enumerate() {
                let spans = source.episodes(split).iter().filter(|span| is_chosen(source, span)).copied();
                let reach = source.request.anchor_reach();
                match split {
                    Split::Train => table.push_rows(index, spans.map(|span| (span, source.kept_rows(&span))), reach),
                    Split::Validation => table.push(index, spans, reach),
                }
            }
        };
        let (mut train, mut validation) = (AnchorTable::new(), AnchorTable::new());
        push(&mut validation, Split::Validation, &|_, _| true);
        let num_labelled = if loader.labelled_fraction.is_some() {
            push(&mut train, Split::Train, &|source, span| source.shows_actions(span, Split::Train));
            let num_labelled = train.len();
            push(&mut train, Split::Train, &|source, span| !source.shows_actions(span, Split::Train));
            Some(num_labelled)
        } else {
            push(&mut train, Split::Train, &|_, _| true);
            None
        };
        let weights: Vec<_> = sources.iter().map(|source| source.weight).collect();
        let is_mixed = loader.is_mixed(&weights);
        let over_episodes = loader.uniform_over == UniformOver::Episodes;
        let (pools, sizes): (Vec<_>, Vec<_>) = pools(&sources, &train, over_episodes).into_iter().unzip();
        let mut shares = vec![SourceWeight::Proportionate; sources.len()];
        if is_mixed {
            shares.clone_from(&weights);
        }
        let mut shares = shares::shares(&shares, &sizes);
        if let (Some(fraction), Some(num_labelled)) = (loader.labelled_fraction, num_labelled) {
            let of_kinds = [(num_labelled, fraction), (train.len() - num_labelled, 1.0 - fraction)];
            shares = train.fractions(sources.len(), of_kinds);
        }
        let is_drawable = pools.iter().zip(&shares).all(|(pool, share)| *share == 0.0 || !pool.anchors.is_empty());
        let mixing = (is_mixed && is_drawable).then(|| Mixing::new(pools, &shares, loader.mixing_block as u64));
        Ok(Self { train, num_labelled, validation, shares, mixing: mixing.map(Arc::new), sources, layout, loader })
    }

    /// By source the fraction of the training samples that it should have.
    pub fn target_shares(&self) -> impl Iterator<Item = (&str, f64)> {
        self.sources.iter().map(Source::name).zip(self.shares.iter().copied())
    }

    /// The same sources with samples of other offsets and `labels`; nothing is opened again. Only the images at the offsets `anchor_images`
    /// must be inside the episode of an anchor; the others, and labels, are padded.
    ///
    /// # Errors
    /// [`Problem`] with the key of an offset that is not a whole number of frames, or of a source without these labels.
    pub fn with_request(
        &self,
        request: &RequestConfig,
        anchor_images: &[f64],
        labels: &LabelRequest,
    ) -> Result<Self, DataError> {
        let with_request = |source: &Source| source.with_request(request, anchor_images, labels);
        let sources = self.sources.iter().map(with_request).collect::<Result<_, DataError>>()?;
        Self::new(sources, self.layout.size, self.loader.clone())
    }

    /// The same sources with samples of frame pairs, the states at both frames, and the actions that lead from one to the other: of every step
    /// from the first frame to the last before the second. Where that is another number of steps in each source, the shorter ones are padded.
    ///
    /// # Errors
    /// [`Problem`] with the key of an offset that is not a whole number of frames.
    pub fn with_whole_pairs(&self, request: &RequestConfig) -> Result<Self, DataError> {
        let sources = self.sources.iter().map(|source| source.with_whole_pairs(request));
        Self::new(sources.collect::<Result<_, DataError>>()?, self.layout.size, self.loader.clone())
    }

    /// The same sources with exactly these episodes held out, by the name of the source; a source without an entry keeps its split.
    ///
    /// # Errors
    /// [`Problem`] with the source that has no episode left for training.
    pub fn with_held_out(&self, held_out: &BTreeMap<String, Vec<u64>>) -> Result<Self, DataError> {
        let split = |source: &Source| match held_out.get(source.name()) {
            Some(held_out) => source.with_held_out(held_out),
            None => Ok(source.clone()),
        };
        let sources = self.sources.iter().map(split).collect::<Result<_, _>>()?;
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
            (false, _) => return if split == Split::Train { self.require_drawn() } else { Ok(()) },
            (true, 0) => ("data.sources", "has no episode", "raise data.sources.<name>.num_val_episodes"),
            (true, _) => (
                "data.request.image_deltas",
                "has no sample: every episode is shorter than the offsets reach",
                "use smaller offsets, more episodes, or another data.sources.<name>.num_val_episodes",
            ),
        };
        Err(Problem::new(key, format!("the {} set {message}", split.name()), hint))
    }

    /// Refuses a source with a share of the samples that has none.
    fn require_drawn(&self) -> Result<(), Problem> {
        for (index, source) in self.sources.iter().enumerate() {
            let share = self.shares[index];
            if share > 0.0 && self.num_labelled.is_none() && self.train.of_source(index).0.is_empty() {
                let key = format!("data.sources.{}.weight", source.name);
                let message = format!("its share of the samples is {share}, but it has no training sample");
                let hint = "use smaller offsets or more of its episodes, set the weight to 0, or leave the source out";
                return Err(Problem::new(key, message, hint));
            }
        }
        Ok(())
    }
}

/// By source its anchors, as they are drawn, and its size.
fn pools(sources: &[Source], anchors: &AnchorTable, over_episodes: bool) -> Vec<(Pool, u64)> {
    let pool = |(index, source): (usize, &Source)| {
        let (anchors, episodes) = anchors.of_source(index);
        let num_anchors = anchors.end - anchors.start;
        let episodes: Option<Vec<u64>> = over_episodes.then(|| episodes.collect());
        let size = episodes.as_ref().map_or(num_anchors, |episodes| episodes.len() as u64);
        (Pool { key: xxh3_64(source.name.as_bytes()), anchors, episodes }, size)
    };
    sources.iter().enumerate().map(pool).collect()
}

/// What reads videos over HTTP, if a source is streamed.
fn streams(config: &DataConfig) -> Result<Option<Arc<Streams>>, DataError> {
    if !config.sources.values().any(|source| source.is_streamed()) {
        return Ok(None);
    }
    let hub = Hub::of_environment()?;
    Ok(Some(Arc::new(Streams::new(hub, config.loader.stream_cache_mb << 20))))
}

/// What opening the sources of one run has in common.
struct Opener<'a> {
    data: &'a DataConfig,
    size: FrameSize,
    disk: &'a DiskRules,
    progress: &'a CacheProgress<'a>,
    tables: Arc<TableCache>,
    /// What reads videos over HTTP, of all sources together; none where no source is streamed.
    streams: Option<Arc<Streams>>,
    /// Sources are opened at the same time, but frame caches are built one after the other, each with all decode threads.
    building: Mutex<()>,
}

impl Opener<'_> {
    /// Opens a dataset and binds it to its configuration.
    fn open(&self, name: &str, config: &SourceConfig) -> Result<Source, DataError> {
        let options = OpenOptions {
            tables: Arc::clone(&self.tables),
            tolerance_s: config.tolerance_s,
            rlds: config.rlds.clone(),
            scenes: config.scenes.clone(),
            index_dir: Some(self.data.cache.dir.clone()),
            streams: self.streams.clone().filter(|_| config.is_streamed()),
        };
        let location = locate(name, config)?;
        check_section(name, config, &location.root)?;
        let dataset = formats::open(&location.root, &options)?;
        check_features(name, config, dataset.describe())?;
        require_files(name, config, &location)?;
        let mut cameras = BTreeMap::new();
        for (role, key) in &config.cameras {
            let size = (self.data.resize == Resize::Host).then_some(self.size);
            let decoded = || Arc::clone(&dataset).frame_store(key, size);
            let frames: Arc<dyn FrameStore> = if self.data.cache.enabled {
                let spans = chosen_episodes(name, config, &*dataset)?;
                let spec = CacheSpec::of(&*dataset, &location.name()?, key, self.size, spans)?
                    .with_tolerance(config.tolerance_s);
                Arc::new(self.cached(&spec, decoded, &|done, total| (self.progress)(name, role, done, total))?)
            } else {
                Arc::from(decoded()?)
            };
            cameras.insert(role.clone(), frames);
        }
        let source = Source::new(name, config, &self.data.request, Arc::clone(&dataset), cameras)?;
        match (config.filter, &self.data.filter) {
            (Some(by), Some(filter)) => self.filtered(source, config, &location, &dataset, by, filter),
            _ => Ok(source),
        }
    }

    /// The source without the training anchors that show too little.
    fn filtered(
        &self,
        source: Source,
        config: &SourceConfig,
        location: &Location,
        dataset: &Arc<dyn Dataset>,
        by: FilterBy,
        settings: &FilterConfig,
    ) -> Result<Source, DataError> {
        let (back, on) = source.request.anchor_reach();
        let mut spans = [source.episodes(Split::Train), source.episodes(Split::Validation)].concat();
        spans.sort_by_key(|span| span.from_row);
        let filter = Filter {
            name: source.name(),
            dataset,
            cameras: config.cameras.values().map(String::as_str).collect(),
            action_key: config.action_key.as_deref(),
            spans: &spans,
            by,
            config: settings,
            image_gap: on.abs_diff(back),
        };
        let mut counts = VerdictCounts::default();
        let mut kept = HashMap::new();
        for verdict in filter.scores(&self.data.cache.dir, self.disk)?.verdicts() {
            counts.add(&verdict.counts);
            kept.insert(verdict.span.episode, verdict.kept_rows());
        }
        tracing::info!("filter of {}: {counts}", source.name);
        if counts.num_kept == 0 {
            let hint = format!(
                "lower the thresholds in data.filter; `hlrp data filter {}` draws the scores",
                location.root.display()
            );
            let key = format!("data.sources.{}.filter", source.name);
            return Err(Problem::new(key, "it keeps no anchor", hint).into());
        }
        Ok(source.with_kept(kept))
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
            disk: self.disk,
            progress,
        };
        let cache = FrameCache::open_or_build(&self.data.cache.dir, spec, decoded, &options)?;
        if self.data.cache.verify {
            cache.verify(progress)?;
        }
        Ok(cache)
    }
}
