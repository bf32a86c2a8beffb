//! Section `data`.

use crate::filter::{FilterBy, FilterConfig};
use crate::rules::{Checked, MAX_THREADS, at_least, long_count, require, section, within};
use crate::scenes::ScenesConfig;
use hlrp_config::Check;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Range,
    path::PathBuf,
};

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
    /// Where frames are resized.
    pub resize: Resize,
    /// The frame cache.
    pub cache: CacheConfig,
    /// Which anchors show something; needed by sources with a filter.
    pub filter: Option<FilterConfig>,
}

/// One dataset. The folder itself shows which format it has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// Folder of the dataset.
    pub root: Option<PathBuf>,
    /// Name of the dataset on the Hugging Face Hub, instead of a folder.
    pub repo_id: Option<String>,
    /// Its branch, tag or commit; the main branch when null.
    pub revision: Option<String>,
    /// Whether its videos are read over HTTP, and not from a download; they are not when null.
    pub streaming: Option<bool>,
    /// Role of an image stream to feature key.
    pub cameras: BTreeMap<String, String>,
    /// Feature key of the state; none when null.
    pub state_key: Option<String>,
    /// Feature key of the action; none when null.
    pub action_key: Option<String>,
    /// How often it is drawn; in proportion to its size when null.
    pub weight: Option<SourceWeight>,
    /// From the first to the last image of a sample; as `data.request` says when null.
    pub span: Option<SpanConfig>,
    /// Episode indices in use; all when null.
    pub episodes: Option<Vec<u64>>,
    /// Episode indices that are not in use; none when null.
    pub exclude_episodes: Option<Vec<u64>>,
    /// Episodes held out for validation, spread evenly over those in use.
    pub num_val_episodes: u64,
    /// Episode indices held out for validation, instead of a number of them.
    pub val_episodes: Option<Vec<u64>>,
    /// Largest difference between the recorded time of a row and that of its frame, seconds; LeRobot's 1e-4 when null.
    pub tolerance_s: Option<f64>,
    /// Episodes in use for training whose actions may be seen; all when null. The others show images, states and texts.
    pub labelled_episodes: Option<Vec<u64>>,
    /// By what its training anchors are kept; all of them when null.
    pub filter: Option<FilterBy>,
    /// What an RLDS dataset does not say itself; null for other formats.
    pub rlds: Option<RldsConfig>,
    /// What folders of scenes do not say themselves; null for other formats.
    pub scenes: Option<ScenesConfig>,
}

/// The spacing of the images of one source: offsets keep their proportions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpanConfig {
    /// Unit of the length.
    pub unit: DeltaUnit,
    /// From the first to the last image; seconds are rounded to the nearest frame.
    pub length: f64,
}

impl Check for SpanConfig {
    fn check(&self) -> Checked {
        let Self { unit, length } = *self;
        let is_length = length > 0.0 && length <= MAX_DELTA;
        let hint = format!("give a length above 0, {MAX_DELTA} at most");
        require(is_length, "length", format!("the length {length} is out of range"), hint)?;
        let is_whole = unit == DeltaUnit::Seconds || length.fract() == 0.0;
        require(
            is_whole,
            "length",
            format!("{length} is not a whole number of frames"),
            "give a whole number, or unit=seconds",
        )
    }
}

/// How often a source is drawn for training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SourceWeight {
    /// Its fraction of the samples. Where all sources have one, they are divided by their sum.
    Share(f64),
    /// What the others leave, in proportion to its size: its anchors, or its episodes where those are drawn uniformly.
    Proportionate,
}

/// How configurations write [`SourceWeight::Proportionate`].
const PROPORTIONATE: &str = "proportionate";

impl Serialize for SourceWeight {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Share(share) => serializer.serialize_f64(*share),
            Self::Proportionate => serializer.serialize_str(PROPORTIONATE),
        }
    }
}

impl<'de> Deserialize<'de> for SourceWeight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = SourceWeight;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "a number or `{PROPORTIONATE}`")
            }
            fn visit_f64<E: de::Error>(self, share: f64) -> Result<SourceWeight, E> {
                Ok(SourceWeight::Share(share))
            }
            fn visit_i64<E: de::Error>(self, share: i64) -> Result<SourceWeight, E> {
                Ok(SourceWeight::Share(share as f64))
            }
            fn visit_u64<E: de::Error>(self, share: u64) -> Result<SourceWeight, E> {
                Ok(SourceWeight::Share(share as f64))
            }
            fn visit_str<E: de::Error>(self, word: &str) -> Result<SourceWeight, E> {
                let is_known = word == PROPORTIONATE;
                is_known
                    .then_some(SourceWeight::Proportionate)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(word), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// What an RLDS dataset does not say itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RldsConfig {
    /// Episodes to train on, in the words of TensorFlow Datasets.
    pub split: String,
    /// Episodes held out, in the same words; null: `num_val_episodes` of `split`.
    pub val_split: Option<String>,
    /// Steps per second.
    pub fps: f64,
    /// Feature key of the instruction; none when null.
    pub task_key: Option<String>,
}

impl SourceConfig {
    /// How often it is drawn.
    #[must_use]
    pub fn weight(&self) -> SourceWeight {
        self.weight.unwrap_or(SourceWeight::Proportionate)
    }

    /// Whether any episode is held out.
    #[must_use]
    pub fn holds_out(&self) -> bool {
        self.num_val_episodes > 0 || self.val_episodes.is_some() || self.split_key().is_some()
    }

    /// The key of its format that holds out episodes; none where that is left to `num_val_episodes` and `val_episodes`.
    fn split_key(&self) -> Option<&'static str> {
        let of_rlds = self.rlds.as_ref().and_then(|rlds| rlds.val_split.as_ref()).map(|_| "rlds.val_split");
        of_rlds.or_else(|| self.scenes.as_ref().and_then(|scenes| scenes.split.as_ref()).map(|_| "scenes.split"))
    }
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

impl RequestConfig {
    /// The pair of images at the first two offsets, and the images at some of `num_steps` equal steps from one to the other.
    #[must_use]
    pub fn with_steps(&self, num_steps: i64, steps: Range<i64>) -> Self {
        let (first, last) = (self.image_deltas[0], self.image_deltas[1]);
        let between = steps.map(|step| first + (last - first) * step as f64 / num_steps as f64);
        Self { image_deltas: [first, last].into_iter().chain(between).collect(), ..self.clone() }
    }

    /// The pair of images at the first two offsets, and the image as far after the later one as that is after the earlier one.
    #[must_use]
    pub fn with_third_image(&self) -> Self {
        let (first, second) = (self.image_deltas[0], self.image_deltas[1]);
        Self { image_deltas: vec![first, second, 2.0 * second - first], ..self.clone() }
    }
}

/// What is drawn uniformly within a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UniformOver {
    /// Anchor frames: a long episode counts by its length.
    Anchors,
    /// Episodes, then anchors within one.
    Episodes,
}

/// Where frames get the size that the model asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resize {
    /// In the decode threads.
    Host,
    /// On the device of the training; they leave the decode threads in their recorded size.
    Device,
}

/// How batches are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderConfig {
    /// Samples per batch and rank.
    pub batch_size: usize,
    /// Neighbouring anchors that are decoded together and go into as many successive batches.
    pub anchors_per_clip: usize,
    /// Share of the training samples that come from labelled episodes; as many as there are when null.
    pub labelled_fraction: Option<f64>,
    /// What is drawn uniformly within a source.
    pub uniform_over: UniformOver,
    /// Samples, over all processes, within which every weighted source has exactly its share, up to one sample.
    pub mixing_block: usize,
    /// Decode threads.
    pub num_workers: usize,
    /// Batches that are prepared ahead of the trainer.
    pub prefetch_batches: usize,
    /// MiB of samples in flight and of the clips that they come from.
    pub memory_budget_mb: usize,
    /// MiB of state, action and task columns that stay in memory.
    pub table_cache_mb: usize,
    /// MiB of videos read over HTTP that stay in memory.
    pub stream_cache_mb: usize,
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

/// Largest tolerance in seconds; above it a neighbouring frame would match as well.
const MAX_TOLERANCE_S: f64 = 1.0;

/// Largest weight of a source.
const MAX_WEIGHT: f64 = 1e9;

/// Largest number of samples within which shares are exact.
const MAX_MIXING_BLOCK: i128 = 1 << 16;

/// Largest offset in frames or seconds.
const MAX_DELTA: f64 = (1u64 << 31) as f64;

impl Check for DataConfig {
    fn check(&self) -> Checked {
        let hint = "choose a dataset with data=NAME, or add one below data.sources";
        require(!self.sources.is_empty(), "sources", "no data source", hint)?;
        for (name, source) in &self.sources {
            section("sources", section(name, source.check()))?;
        }
        section("request", self.request.check())?;
        section("loader", self.loader.check())?;
        if let Some(filter) = &self.filter {
            section("filter", filter.check())?;
        }
        let resizes = self.resize == Resize::Host || !self.cache.enabled;
        let hint = "set it to host, or data.cache.enabled=false";
        require(resizes, "resize", "the frame cache holds frames that the host has resized", hint)?;
        let is_filtered = self.sources.values().any(|source| source.filter.is_some());
        let hint = "take the section from config/data/lerobot.yaml, or set data.sources.<name>.filter=null";
        require(!is_filtered || self.filter.is_some(), "filter", "a source has a filter without its settings", hint)?;
        self.check_mixing()
    }
}

impl DataConfig {
    /// Shares of sources go together with neither clips nor shares of labels.
    fn check_mixing(&self) -> Checked {
        let weights: Vec<_> = self.sources.values().map(SourceConfig::weight).collect();
        if !self.loader.is_mixed(&weights) {
            return Ok(());
        }
        let message = "sources with weights, and uniform episodes, cannot be combined with it";
        let hint = "set it to null, or give every source weight=proportionate and data.loader.uniform_over=anchors";
        section("loader", require(self.loader.labelled_fraction.is_none(), "labelled_fraction", message, hint))?;
        let hint = "set it to 1, or give every source weight=proportionate and data.loader.uniform_over=anchors";
        section("loader", require(self.loader.anchors_per_clip == 1, "anchors_per_clip", message, hint))?;
        let is_drawn = |weight: &SourceWeight| *weight != SourceWeight::Share(0.0);
        let hint = "give at least one source a weight above 0";
        require(weights.iter().any(is_drawn), "sources", "every source has weight 0", hint)
    }
}

impl LoaderConfig {
    /// Whether sources with these weights have shares of their own, or episodes are drawn uniformly; otherwise every anchor occurs once in each
    /// epoch.
    #[must_use]
    pub fn is_mixed(&self, weights: &[SourceWeight]) -> bool {
        let has_share = |weight: &SourceWeight| *weight != SourceWeight::Proportionate;
        self.uniform_over == UniformOver::Episodes || weights.len() > 1 && weights.iter().any(has_share)
    }
}

impl SourceWeight {
    /// Its own share; 0 where it takes what others leave.
    #[must_use]
    pub fn fixed_share(self) -> f64 {
        match self {
            Self::Share(share) => share,
            Self::Proportionate => 0.0,
        }
    }
}

impl Check for SourceConfig {
    fn check(&self) -> Checked {
        self.check_place()?;
        require(
            !self.cameras.is_empty(),
            "cameras",
            "no camera",
            "give role: feature key, as in primary: observation.image",
        )?;
        let is_tolerance = self.tolerance_s.is_none_or(|tolerance| tolerance > 0.0 && tolerance <= MAX_TOLERANCE_S);
        let hint = format!("give seconds above 0 and up to {MAX_TOLERANCE_S}, or null for 1e-4");
        require(is_tolerance, "tolerance_s", "the tolerance is out of range", hint)?;
        let share = self.weight().fixed_share();
        let hint = format!("give a number from 0 to {MAX_WEIGHT:e}, or `{PROPORTIONATE}`");
        let is_share = (0.0..=MAX_WEIGHT).contains(&share);
        require(is_share, "weight", format!("the weight {share} is out of range"), hint)?;
        if let Some(span) = &self.span {
            section("span", span.check())?;
        }
        if let Some(rlds) = &self.rlds {
            let is_rate = rlds.fps.is_finite() && rlds.fps > 0.0;
            section("rlds", require(is_rate, "fps", "the rate is not positive", "give steps per second"))?;
        }
        if let Some(scenes) = &self.scenes {
            section("scenes", scenes.check())?;
        }
        if let Some(split) = self.split_key() {
            let message = format!("{split} already holds out episodes");
            let hint = format!("set num_val_episodes=0, or {split}=null");
            require(self.num_val_episodes == 0, "num_val_episodes", message.as_str(), hint)?;
            let hint = format!("set val_episodes=null, or {split}=null");
            require(self.val_episodes.is_none(), "val_episodes", message, hint)?;
        }
        let acts = self.filter.is_some_and(FilterBy::uses_action);
        let hint = "name the feature, or set filter=motion";
        require(self.action_key.is_some() || !acts, "action_key", "the filter needs actions", hint)?;
        if let Some(excluded) = &self.exclude_episodes {
            distinct("exclude_episodes", excluded)?;
        }
        if let Some(held_out) = &self.val_episodes {
            distinct("val_episodes", held_out)?;
            let hint = "set num_val_episodes=0, or val_episodes=null";
            let message = "num_val_episodes already holds out episodes";
            require(self.num_val_episodes == 0, "val_episodes", message, hint)?;
        }
        if let Some(labelled) = &self.labelled_episodes {
            distinct("labelled_episodes", labelled)?;
            let hint = "name the feature, or set labelled_episodes=null";
            require(self.action_key.is_some(), "action_key", "labelled episodes have no action", hint)?;
        }
        let Some(episodes) = &self.episodes else { return Ok(()) };
        distinct("episodes", episodes)?;
        let num_episodes = episodes.len() as u64;
        require(
            self.num_val_episodes < num_episodes,
            "num_val_episodes",
            format!("holding out {} of {num_episodes} episodes leaves none for training", self.num_val_episodes),
            "hold out fewer episodes",
        )
    }
}

/// Indices of at least one episode, each once.
fn distinct(key: &'static str, episodes: &[u64]) -> Checked {
    require(!episodes.is_empty(), key, "an empty list of episodes", "give indices, or null for all")?;
    let mut seen = BTreeSet::new();
    for episode in episodes {
        let message = format!("episode {episode} is listed twice");
        require(seen.insert(episode), key, message, "list each episode once")?;
    }
    Ok(())
}

impl Check for RequestConfig {
    fn check(&self) -> Checked {
        let lists = [
            ("image_deltas", &self.image_deltas),
            ("state_deltas", &self.state_deltas),
            ("action_deltas", &self.action_deltas),
        ];
        for (key, deltas) in lists {
            for delta in deltas {
                let hint = format!("give offsets from -{MAX_DELTA} to {MAX_DELTA}");
                require(delta.abs() <= MAX_DELTA, key, format!("offset {delta} is out of range"), hint)?;
                let is_whole = self.unit != DeltaUnit::Frames || delta.fract() == 0.0;
                let hint = "give whole numbers, or set data.request.unit=seconds";
                require(is_whole, key, format!("{delta} is not a whole number of frames"), hint)?;
            }
        }
        require(!self.image_deltas.is_empty(), "image_deltas", "the list is empty", "give at least [0]")
    }
}

impl Check for LoaderConfig {
    fn check(&self) -> Checked {
        at_least("batch_size", self.batch_size, 1)?;
        at_least("anchors_per_clip", self.anchors_per_clip, 1)?;
        if let Some(fraction) = self.labelled_fraction {
            let hint = "give a number above 0, 1 at most, or null";
            require(
                fraction > 0.0 && fraction <= 1.0,
                "labelled_fraction",
                format!("{fraction} is out of range"),
                hint,
            )?;
            let hint = "set data.loader.anchors_per_clip=1, or data.loader.labelled_fraction=null";
            let message = "clips cannot be balanced: their anchors are neighbours";
            require(self.anchors_per_clip == 1, "labelled_fraction", message, hint)?;
        }
        within("mixing_block", self.mixing_block, 1, MAX_MIXING_BLOCK)?;
        within("num_workers", self.num_workers, 1, MAX_THREADS)?;
        at_least("prefetch_batches", self.prefetch_batches, 1)?;
        long_count("memory_budget_mb", self.memory_budget_mb as u64)?;
        long_count("table_cache_mb", self.table_cache_mb as u64)?;
        at_least("stream_cache_mb", self.stream_cache_mb, 1)?;
        long_count("stream_cache_mb", self.stream_cache_mb as u64)?;
        at_least("max_open_decoders", self.max_open_decoders, 1)
    }
}
