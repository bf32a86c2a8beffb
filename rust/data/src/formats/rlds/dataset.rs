//! An open RLDS dataset: steps by global row.

use super::index::{self, EpisodeEntry, Shard, at_feature, at_image, place};
use super::info::{Info, Split, StoredFeature};
use super::records::{DAMAGED, inspect, is_there};
use super::split;
use super::wire::{self, List};
use crate::check::Findings;
use crate::error::DataError;
use crate::formats::lerobot::{Block, BlockKey, Values};
use crate::formats::{
    Description, FeatureKind, OpenOptions, TableCache, existing_features,
    fingerprint::{Ends, Fingerprint},
};
use crate::frames::FrameSize;
use crate::images::{EncodedImage, EncodedImages, shown_size};
use crate::parallel::in_parallel;
use crate::request::EpisodeSpan;
use crate::{lock::lock, lru::ByteLru};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::File,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

/// Shards that stay open with their indices: with 25 datasets fewer files than the 1024 that a process may usually have.
const MAX_OPEN_SHARDS: usize = 16;

/// An open dataset.
pub struct RldsDataset {
    root: PathBuf,
    pub(super) features: Vec<StoredFeature>,
    /// Key of the feature with the instruction.
    task_key: Option<String>,
    shards: Vec<Shard>,
    /// Episodes with steps, in the order of their rows.
    episodes: Vec<Episode>,
    held_out: Option<Vec<u64>>,
    open: Mutex<ByteLru<u32, Arc<OpenShard>>>,
    cache: Arc<TableCache>,
    cache_id: u32,
    pub(super) description: Description,
}

struct Episode {
    span: EpisodeSpan,
    shard: u32,
    entry: EpisodeEntry,
}

struct OpenShard {
    data: File,
    index: File,
}

/// A shard that is read, and which of its episodes.
struct Part {
    name: String,
    /// Number of its first episode among all of the dataset.
    first: u64,
    num_episodes: u64,
    chosen: Vec<Range<u64>>,
}

impl RldsDataset {
    /// Opens the dataset at `root`. Without a folder for its index only its metadata is read, and it has no episodes.
    ///
    /// # Errors
    /// There is no dataset, its metadata or a shard is damaged, or the split is not one of it.
    pub fn open(root: &Path, options: &OpenOptions) -> Result<Self, DataError> {
        let info = Info::read(root)?;
        let config = options.rlds.as_ref();
        let (parts, held_out) = choose(root, &info, config)?;
        let (description, index_names) = describe(root, &info, config.map(|config| config.fps))?;
        let mut dataset = Self {
            root: root.to_owned(),
            task_key: config.and_then(|config| config.task_key.clone()),
            shards: Vec::new(),
            episodes: Vec::new(),
            held_out,
            open: Mutex::new(ByteLru::new(usize::MAX, MAX_OPEN_SHARDS)),
            cache: Arc::clone(&options.tables),
            cache_id: options.tables.register(),
            description,
            features: info.features,
        };
        if let Some(key) = &dataset.task_key {
            dataset.stored(key, "text or list of bytes", |_| true)?;
        }
        if let Some(cache) = &options.index_dir {
            let folder =
                cache.join("rlds").join(format!("{}-{}", info.name.replace('/', "_"), info.version.replace('/', "_")));
            dataset.index(&parts, &index_names, &folder)?;
        }
        Ok(dataset)
    }

    /// Reads or builds the index of the shards, and numbers the rows.
    fn index(&mut self, parts: &[Part], names: &HashMap<String, String>, folder: &Path) -> Result<(), DataError> {
        std::fs::create_dir_all(folder).map_err(DataError::io(folder))?;
        let features = &self.features;
        let shards = in_parallel(parts, |part| {
            let path = self.root.join(&part.name);
            let Some(name) = names.get(&part.name) else { return Err(missing(&path)) };
            let shard = Shard { path, index: folder.join(name) };
            let entries = shard.episodes(features, part.num_episodes)?;
            Ok::<_, DataError>((shard, entries))
        });
        let mut from_row = 0;
        for (shard, (part, opened)) in parts.iter().zip(shards).enumerate() {
            let (opened, entries) = opened?;
            self.shards.push(opened);
            for at in part.chosen.iter().cloned().flatten() {
                let entry = entries[at as usize];
                if entry.num_steps == 0 {
                    continue;
                }
                let to_row = from_row + entry.num_steps;
                let span = EpisodeSpan { episode: part.first + at, from_row, to_row };
                self.episodes.push(Episode { span, shard: shard as u32, entry });
                from_row = to_row;
            }
        }
        self.description.num_episodes = self.episodes.len() as u64;
        self.description.num_frames = from_row;
        self.measure_cameras()
    }

    /// Cameras without a recorded size have that of their first image.
    fn measure_cameras(&mut self) -> Result<(), DataError> {
        for (camera, key) in self.camera_keys().into_iter().enumerate() {
            let feature = &self.description.features[&key];
            if feature.frame_size().is_some() {
                continue;
            }
            let Some(row) = self.episodes.first().map(|episode| episode.span.from_row) else { continue };
            let image = self.image(camera, &key, row)?;
            let FrameSize { height, width } =
                shown_size(&image.bytes).map_err(|what| self.frame_failure(&image.path, row, what, DAMAGED))?;
            if let Some(feature) = self.description.features.get_mut(&key) {
                feature.shape = vec![height, width, 3];
            }
        }
        Ok(())
    }

    /// Keys of the cameras, in the order of the index.
    pub(super) fn camera_keys(&self) -> Vec<String> {
        let is_camera = |stored: &&StoredFeature| stored.of_step && stored.feature.kind == FeatureKind::Camera;
        self.features.iter().filter(is_camera).map(|stored| stored.key.clone()).collect()
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn num_shards(&self) -> usize {
        self.shards.len()
    }

    /// Reads every shard again: checksums, and positions against the index. A shard that the metadata does not name is a finding.
    pub(super) fn check_shards(&self, findings: &mut Findings) {
        if let Err(error) = self.check_orphans(findings) {
            findings.error(&error);
        }
        let checked = in_parallel(&self.shards, |shard| shard.check(&self.features));
        for error in checked.iter().filter_map(|checked| checked.as_ref().err()) {
            findings.error(error);
        }
        let num_episodes: u64 = checked.iter().flatten().sum();
        findings.verified(format!("checksums and contents of {} shards, {num_episodes} episodes", self.shards.len()));
    }

    fn check_orphans(&self, findings: &mut Findings) -> Result<(), DataError> {
        let info = Info::read(&self.root)?;
        let named: BTreeSet<&str> = info.splits.iter().flat_map(|split| &split.shards).map(String::as_str).collect();
        let entries = std::fs::read_dir(&self.root).map_err(DataError::io(&self.root))?;
        let mut names = entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(DataError::io(&self.root))?;
        names.sort();
        for name in names.iter().filter(|name| name.contains(".tfrecord") && !named.contains(name.as_str())) {
            findings.add(&self.root.join(name), "dataset_info.json does not list this shard");
        }
        Ok(())
    }

    pub(super) fn spans(&self) -> Vec<EpisodeSpan> {
        self.episodes.iter().map(|episode| episode.span).collect()
    }

    pub(super) fn held_out(&self) -> Option<Vec<u64>> {
        self.held_out.clone()
    }

    /// The feature of a key and its position among the stored ones.
    fn stored(
        &self,
        key: &str,
        what: &str,
        keep: impl Fn(&StoredFeature) -> bool,
    ) -> Result<(usize, &StoredFeature), DataError> {
        let mut stored = self.features.iter().enumerate();
        stored.find(|(_, stored)| stored.key == key && keep(stored)).ok_or_else(|| {
            let keys: Vec<_> =
                self.features.iter().filter(|stored| keep(stored)).map(|stored| stored.key.as_str()).collect();
            DataError::Feature {
                root: self.root.clone(),
                what: format!("has no {what} `{key}`"),
                hint: existing_features(what, &keys),
            }
        })
    }

    fn episode_of(&self, row: u64) -> Result<&Episode, DataError> {
        let slot = self.episodes.partition_point(|episode| episode.span.to_row <= row);
        self.episodes.get(slot).ok_or_else(|| DataError::Dataset {
            root: self.root.clone(),
            what: format!("row {row} belongs to no episode"),
            hint: format!("rows are 0..{}", self.description.num_frames),
        })
    }

    fn shard(&self, shard: u32) -> Result<Arc<OpenShard>, DataError> {
        if let Some(open) = lock(&self.open).get(&shard) {
            return Ok(Arc::clone(open));
        }
        let Shard { path, index } = &self.shards[shard as usize];
        let open = Arc::new(OpenShard {
            data: File::open(path).map_err(DataError::io(path))?,
            index: File::open(index).map_err(DataError::io(index))?,
        });
        lock(&self.open).put(shard, Arc::clone(&open), 0);
        Ok(open)
    }

    /// Bytes of the shard at what the index has at `at`; none where the episode lacks it.
    fn bytes(&self, episode: &Episode, at: u64) -> Result<Option<Vec<u8>>, DataError> {
        let shard = self.shard(episode.shard)?;
        let Shard { path, index } = &self.shards[episode.shard as usize];
        let Some(range) = place(&shard.index, index, at)? else { return Ok(None) };
        let len = shard.data.metadata().map_err(DataError::io(path))?.len();
        if range.end > len {
            return Err(DataError::file(path, format!("ends before byte {}", range.end), DAMAGED));
        }
        let mut bytes = vec![0; (range.end - range.start) as usize];
        shard.data.read_exact_at(&mut bytes, range.start).map_err(DataError::io(path))?;
        Ok(Some(bytes))
    }

    /// The message of a feature of an episode.
    fn message(&self, episode: &Episode, feature: usize) -> Result<Vec<u8>, DataError> {
        self.bytes(episode, at_feature(episode.entry, feature))?.ok_or_else(|| {
            let what = format!("episode {} has no `{}`", episode.span.episode, self.features[feature].name);
            DataError::file(
                &self.shards[episode.shard as usize].path,
                what,
                "leave the episode out, or use another feature",
            )
        })
    }

    fn wrong(&self, episode: &Episode, feature: usize) -> impl FnOnce(String) -> DataError {
        let path = self.shards[episode.shard as usize].path.clone();
        let name = self.features[feature].name.clone();
        let number = episode.span.episode;
        move |what| DataError::file(&path, format!("episode {number}: `{name}` {what}"), DAMAGED)
    }

    /// As [`crate::Dataset::read_vectors`].
    pub(super) fn vectors(&self, key: &str, rows: &[u64], out_TN: &mut [f32]) -> Result<(), DataError> {
        let is_vector = |stored: &StoredFeature| stored.feature.kind == FeatureKind::Vector;
        let (position, stored) = self.stored(key, "numeric feature", is_vector)?;
        let width = stored.feature.num_values();
        let mut block: Option<Arc<Block>> = None;
        for (&row, out_N) in rows.iter().zip(out_TN.chunks_exact_mut(width)) {
            let block = match &mut block {
                Some(block) if block.rows.contains(&row) => block,
                block => block.insert(self.block(position, stored, row)?),
            };
            let Values::Each(values) = &block.values else { continue };
            let at = if stored.of_step { (row - block.rows.start) as usize * width } else { 0 };
            out_N.copy_from_slice(&values[at..at + width]);
        }
        Ok(())
    }

    /// A vector of all steps of the episode of a row: `[T,N]`, or `[N]` of a feature of the episode.
    fn block(&self, position: usize, stored: &StoredFeature, row: u64) -> Result<Arc<Block>, DataError> {
        let slot = self.episodes.partition_point(|episode| episode.span.to_row <= row);
        let episode = self.episode_of(row)?;
        let key = BlockKey { dataset: self.cache_id, file: slot as u32, group: 0, column: position as u32 };
        self.cache.block(key, || {
            let message = self.message(episode, position)?;
            let values = numbers(&message).map_err(self.wrong(episode, position))?;
            let steps = if stored.of_step { episode.entry.num_steps as usize } else { 1 };
            if values.len() != steps * stored.feature.num_values() {
                return Err(self.wrong(episode, position)(format!("has {} values", values.len())));
            }
            let rows = episode.span.from_row..episode.span.to_row;
            Ok(Block { rows, values: Values::Each(values) })
        })
    }

    /// The texts of a feature of the episode of a row: one per step, or one.
    fn texts(&self, key: &str, row: u64) -> Result<(bool, Vec<String>), DataError> {
        let (position, stored) = self.stored(key, "feature", |_| true)?;
        let episode = self.episode_of(row)?;
        let message = self.message(episode, position)?;
        let texts = texts_of(&message, stored.feature.num_values()).map_err(self.wrong(episode, position))?;
        Ok((stored.of_step, texts))
    }

    /// A text at a row; also a list of bytes as integers is one.
    ///
    /// # Errors
    /// There is no such feature, or it has no text.
    pub fn text(&self, key: &str, row: u64) -> Result<String, DataError> {
        let (of_step, texts) = self.texts(key, row)?;
        let at = if of_step { (row - self.episode_of(row)?.span.from_row) as usize } else { 0 };
        Ok(texts.into_iter().nth(at).unwrap_or_default())
    }

    pub(super) fn task(&self, row: u64) -> Result<String, DataError> {
        self.task_key.as_ref().map_or(Ok(String::new()), |key| self.text(key, row))
    }

    pub(super) fn tasks_of(&self, span: &EpisodeSpan) -> Result<Vec<String>, DataError> {
        let Some(key) = &self.task_key else { return Ok(Vec::new()) };
        let mut tasks = Vec::new();
        for text in self.texts(key, span.from_row)?.1 {
            if !tasks.contains(&text) {
                tasks.push(text);
            }
        }
        Ok(tasks)
    }

    /// The image of a camera at a row.
    pub(super) fn image(&self, camera: usize, key: &str, row: u64) -> Result<EncodedImage, DataError> {
        let episode = self.episode_of(row)?;
        let path = &self.shards[episode.shard as usize].path;
        let at = at_image(episode.entry, self.features.len(), camera, row - episode.span.from_row);
        match self.bytes(episode, at)? {
            Some(bytes) => Ok(EncodedImage { path: path.clone(), bytes }),
            None => Err(self.frame_failure(path, row, format!("the episode has no `{key}`"), "leave the episode out")),
        }
    }

    pub(super) fn frame_failure(&self, path: &Path, row: u64, what: String, hint: &str) -> DataError {
        let (episode, first) = self.episode_of(row).map_or((0, row), |found| (found.span.episode, found.span.from_row));
        let wanted_s = (row - first) as f64 / self.description.fps;
        DataError::Frame { path: path.to_owned(), episode, wanted_s, what, hint: hint.to_owned() }
    }
}

/// The encoded images of one camera.
pub(super) struct Camera {
    pub(super) dataset: Arc<RldsDataset>,
    pub(super) position: usize,
    pub(super) key: String,
}

impl EncodedImages for Camera {
    fn image(&self, row: u64) -> Result<EncodedImage, DataError> {
        self.dataset.image(self.position, &self.key, row)
    }

    fn failure(&self, path: &Path, row: u64, what: String, hint: &str) -> DataError {
        self.dataset.frame_failure(path, row, format!("`{}` {what}", self.key), hint)
    }
}

/// The numbers of a feature's message.
fn numbers(message: &[u8]) -> Result<Vec<f32>, String> {
    match wire::list(message, 0..message.len())? {
        Some((List::Floats, range)) => wire::floats(message, range),
        Some((List::Ints, range)) => Ok(wire::ints(message, range)?.into_iter().map(|value| value as f32).collect()),
        _ => Err("has no numbers".into()),
    }
}

/// The texts of a feature's message: strings, or `width` integers each that are the bytes of one, padded with zeros.
fn texts_of(message: &[u8], width: usize) -> Result<Vec<String>, String> {
    let text = |bytes: &[u8]| {
        let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    };
    match wire::list(message, 0..message.len())? {
        Some((List::Bytes, range)) => {
            Ok(wire::items(message, range)?.into_iter().map(|item| text(&message[item])).collect())
        }
        Some((List::Ints, range)) => {
            let values = wire::ints(message, range)?;
            let bytes = values.iter().map(|&value| u8::try_from(value)).collect::<Result<Vec<_>, _>>();
            let bytes = bytes.map_err(|_| "has integers that are not bytes of a text")?;
            Ok(bytes.chunks_exact(width).map(text).collect())
        }
        _ => Err("has no text".into()),
    }
}

/// The shards to read, and the episodes that are held out.
fn choose(
    root: &Path,
    info: &Info,
    config: Option<&hlrp_schema::RldsConfig>,
) -> Result<(Vec<Part>, Option<Vec<u64>>), DataError> {
    let firsts: Vec<u64> = info
        .splits
        .iter()
        .scan(0, |next, split| {
            let first = *next;
            *next += split.num_episodes();
            Some(first)
        })
        .collect();
    let resolve = |spec: &str| {
        let slices = split::resolve(spec, &info.splits).map_err(|what| {
            let names: Vec<_> =
                info.splits.iter().map(|split| format!("{} ({} episodes)", split.name, split.num_episodes())).collect();
            DataError::Dataset { root: root.to_owned(), what, hint: format!("its splits are {}", names.join(", ")) }
        })?;
        let global = slices.into_iter().map(|(split, range)| firsts[split] + range.start..firsts[split] + range.end);
        Ok::<Vec<Range<u64>>, DataError>(global.collect())
    };
    let train = resolve(config.map_or("all", |config| &config.split))?;
    let validation = config.and_then(|config| config.val_split.as_deref()).map(resolve).transpose()?;
    let mut chosen: Vec<Range<u64>> = train.iter().chain(validation.iter().flatten()).cloned().collect();
    chosen.retain(|range| !range.is_empty());
    chosen.sort_by_key(|range| range.start);
    if let Some([_, range]) = chosen.array_windows().find(|[before, after]| after.start < before.end) {
        return Err(DataError::Dataset {
            root: root.to_owned(),
            what: format!("episode {} occurs twice in the splits", range.start),
            hint: "give data.sources.<name>.rlds.split and val_split that do not overlap".into(),
        });
    }
    let held_out = validation.map(|ranges| ranges.into_iter().flatten().collect());
    Ok((parts(&info.splits, &chosen), held_out))
}

/// The shards with any of the episodes, which are in order.
fn parts(splits: &[Split], chosen: &[Range<u64>]) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut first = 0;
    for split in splits {
        for (name, &num_episodes) in split.shards.iter().zip(&split.shard_lengths) {
            let end = first + num_episodes;
            let mut ranges: Vec<Range<u64>> = Vec::new();
            let begin = chosen.partition_point(|range| range.end <= first);
            for range in chosen[begin..].iter().take_while(|range| range.start < end) {
                let (start, end) = (range.start.max(first) - first, range.end.min(end) - first);
                match ranges.last_mut() {
                    Some(last) if last.end == start => last.end = end,
                    _ => ranges.push(start..end),
                }
            }
            if !ranges.is_empty() {
                parts.push(Part { name: name.clone(), first, num_episodes, chosen: ranges });
            }
            first = end;
        }
    }
    parts
}

/// The error of a shard without an index, which is missing.
fn missing(path: &Path) -> DataError {
    match inspect(path) {
        Err(error) => error,
        Ok(_) => DataError::file(path, "the file was missing a moment ago", "run the command again"),
    }
}

/// What the metadata says, what names the data, and by shard what names its index.
fn describe(root: &Path, info: &Info, fps: Option<f64>) -> Result<(Description, HashMap<String, String>), DataError> {
    let mut fingerprint = Fingerprint::new("RLDS");
    fingerprint.add(info.text.as_bytes());
    let of_index = index::fingerprint(&info.features);
    let mut index_names = HashMap::new();
    for shard in info.splits.iter().flat_map(|split| &split.shards) {
        let path = root.join(shard);
        let ends = is_there(&path)?.then(|| Ends::read(&path).map_err(DataError::io(&path))).transpose()?;
        fingerprint.add_named_ends(shard, ends.as_ref());
        if let Some(ends) = &ends {
            index_names.insert(shard.clone(), index::index_name(of_index.clone(), shard, ends));
        }
    }
    let features = info.features.iter().map(|stored| (stored.key.clone(), stored.feature.clone())).collect();
    let description = Description {
        format: format!("RLDS, {} {}", info.name, info.version),
        robot: None,
        fps: fps.unwrap_or(1.0),
        is_fps_known: fps.is_some(),
        num_episodes: 0,
        num_frames: 0,
        features,
        tasks: Vec::new(),
        statistics: BTreeMap::new(),
        fingerprint: fingerprint.finish(),
    };
    Ok((description, index_names))
}
