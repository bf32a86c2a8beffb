//! `dataset_info.json` and `features.json`: splits and shards, and what each step has.

use crate::error::DataError;
use crate::formats::{Feature, FeatureKind};
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

pub(super) const INFO: &str = "dataset_info.json";
pub(super) const FEATURES: &str = "features.json";

/// The feature with an episode's steps.
const STEPS: &str = "steps";
/// Where TFDS puts a shard if it does not say.
const SHARD_TEMPLATE: &str = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}";
/// Most values of a feature of one step.
const MAX_VALUES: usize = 1 << 26;
/// Most episodes of a shard.
const MAX_EPISODES: u64 = 1 << 32;
/// Most shards of a split.
const MAX_SHARDS: u64 = 1 << 20;
const FETCH_AGAIN: &str = "fetch the file again";

/// What the two files say.
pub(super) struct Info {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) splits: Vec<Split>,
    pub(super) features: Vec<StoredFeature>,
    /// Content of both files.
    pub(super) text: String,
}

/// One split of the dataset.
#[derive(Debug)]
pub(super) struct Split {
    pub(super) name: String,
    /// Episodes of each shard.
    pub(super) shard_lengths: Vec<u64>,
    /// Names of the shards.
    pub(super) shards: Vec<String>,
}

impl Split {
    pub(super) fn num_episodes(&self) -> u64 {
        self.shard_lengths.iter().sum()
    }
}

/// A feature and how an example stores it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StoredFeature {
    /// Below `steps` the path there, otherwise the whole path.
    pub(super) key: String,
    /// Name in the example.
    pub(super) name: String,
    /// Whether each step has one, not each episode.
    pub(super) of_step: bool,
    pub(super) feature: Feature,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InfoFile {
    name: String,
    version: String,
    file_format: Option<String>,
    splits: Vec<SplitEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SplitEntry {
    name: String,
    shard_lengths: Option<Vec<Value>>,
    filepath_template: Option<String>,
}

impl Info {
    /// Reads both files.
    ///
    /// # Errors
    /// One is missing or damaged, or stores its records in another way.
    pub(super) fn read(root: &Path) -> Result<Self, DataError> {
        let read = |name: &str| {
            let path = root.join(name);
            let text = hlrp_config::foreign::read_text(&path);
            text.map(|text| (path.clone(), text))
                .map_err(|error| DataError::file(&path, error.to_string(), FETCH_AGAIN))
        };
        let (info_path, info_text) = read(INFO)?;
        let (features_path, features_text) = read(FEATURES)?;
        let damaged = |path: PathBuf| {
            move |error: serde_json::Error| {
                DataError::file(&path, format!("is not what TFDS writes: {error}"), FETCH_AGAIN)
            }
        };
        let info: InfoFile = serde_json::from_str(&info_text).map_err(damaged(info_path.clone()))?;
        let format = info.file_format.as_deref().unwrap_or("tfrecord");
        if format != "tfrecord" {
            let what = format!("the records are stored as {format}; tfrecord is read");
            return Err(DataError::file(&info_path, what, "prepare it with file_format=tfrecord"));
        }
        let split = |entry: &SplitEntry| {
            Split::new(&info.name, entry).map_err(|what| DataError::file(&info_path, what, FETCH_AGAIN))
        };
        let splits = info.splits.iter().map(split).collect::<Result<Vec<_>, _>>()?;
        let tree: Value = serde_json::from_str(&features_text).map_err(damaged(features_path.clone()))?;
        let mut features = BTreeMap::new();
        walk(&tree, "", false, &mut features);
        if !features.values().any(|feature| feature.of_step) {
            let what = "has no `steps` with a feature that is read, as RLDS datasets have";
            return Err(DataError::file(&features_path, what, "choose an RLDS dataset"));
        }
        let features = features.into_values().collect();
        Ok(Self { name: info.name, version: info.version, splits, features, text: info_text + &features_text })
    }
}

impl Split {
    fn new(dataset: &str, entry: &SplitEntry) -> Result<Self, String> {
        let count = |value: &Value| {
            let count = value.as_u64().or_else(|| value.as_str()?.parse().ok()).filter(|&count| count < MAX_EPISODES);
            count.ok_or_else(|| format!("split `{}` has a shard of {value} episodes", entry.name))
        };
        let shard_lengths = entry.shard_lengths.iter().flatten().map(count).collect::<Result<Vec<_>, _>>()?;
        let num_shards = shard_lengths.len();
        if num_shards as u64 > MAX_SHARDS {
            return Err(format!("split `{}` has {num_shards} shards", entry.name));
        }
        let template = entry.filepath_template.as_deref().unwrap_or(SHARD_TEMPLATE);
        let shard = |index: usize| {
            let name = template
                .replace("{DATASET}", dataset)
                .replace("{SPLIT}", &entry.name)
                .replace("{FILEFORMAT}", "tfrecord")
                .replace("{SHARD_X_OF_Y}", &format!("{index:05}-of-{num_shards:05}"))
                .replace("{SHARD_INDEX}", &format!("{index:05}"))
                .replace("{NUM_SHARDS}", &format!("{num_shards:05}"));
            let is_name = hlrp_config::foreign::is_plain_name(&name) && !name.contains('{');
            is_name.then_some(name).ok_or_else(|| format!("split `{}` has the file name {template:?}", entry.name))
        };
        let shards = (0..num_shards).map(shard).collect::<Result<_, _>>()?;
        Ok(Self { name: entry.name.clone(), shard_lengths, shards })
    }
}

/// Collects the features below `value`, whose path in the example is `path`. What is stored in another way is left out.
fn walk(value: &Value, path: &str, of_step: bool, found: &mut BTreeMap<String, StoredFeature>) {
    if let Some(features) = value.pointer("/featuresDict/features").and_then(Value::as_object) {
        for (name, value) in features {
            let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            walk(value, &path, of_step, found);
        }
    } else if let Some(sequence) = value.get("sequence") {
        // Sequences of unknown length within a step are stored in several features.
        if path == STEPS && !of_step {
            walk(&sequence["feature"], path, true, found);
        }
    } else if let Some(feature) = leaf(value) {
        let key = if of_step { path.strip_prefix("steps/").unwrap_or(path) } else { path };
        let stored = StoredFeature { key: key.to_owned(), name: path.to_owned(), of_step, feature };
        // A feature of the episode does not hide one of its steps, and its images are not frames.
        let is_hidden =
            found.contains_key(key) || matches!(stored.feature.kind, FeatureKind::Camera | FeatureKind::Depth);
        if of_step || !is_hidden {
            found.insert(key.to_owned(), stored);
        }
    }
}

/// A feature that is not made of others, if it is stored in a way that is read.
fn leaf(value: &Value) -> Option<Feature> {
    let feature = |kind, shape, dtype: &str| Some(Feature { kind, shape, dtype: dtype.to_owned(), names: Vec::new() });
    if value.get("text").is_some() {
        return feature(FeatureKind::Text, vec![1], "text");
    }
    if value.get("classLabel").is_some() {
        return feature(FeatureKind::Vector, vec![1], "int64");
    }
    if let Some(image) = value.get("image") {
        let dtype = image["dtype"].as_str().unwrap_or("uint8");
        let encoding = image["encodingFormat"].as_str().filter(|encoding| !encoding.is_empty()).unwrap_or("encoded");
        let dims = image.pointer("/shape/dimensions").and_then(Value::as_array)?;
        // An unknown size is 0 until an image is looked at.
        let dims: Vec<usize> = dims.iter().map(|dim| dimension(dim).unwrap_or(0)).collect();
        let [height, width, channels] = *dims.as_slice() else { return None };
        let is_colour = dtype == "uint8" && matches!(channels, 0 | 3 | 4);
        let kind = if is_colour { FeatureKind::Camera } else { FeatureKind::Depth };
        return feature(kind, vec![height, width, 3], encoding);
    }
    let tensor = value.get("tensor")?;
    let dtype = tensor["dtype"].as_str()?;
    if tensor["encoding"].as_str().is_some_and(|encoding| encoding != "none") {
        return None;
    }
    let dims = tensor.pointer("/shape/dimensions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let shape = dims.iter().map(dimension).collect::<Option<Vec<_>>>()?;
    let shape = if shape.is_empty() { vec![1] } else { shape };
    shape
        .iter()
        .try_fold(1, |product: usize, &dim| product.checked_mul(dim))
        .filter(|&n| (1..=MAX_VALUES).contains(&n))?;
    match dtype {
        "string" | "object" => (shape == [1]).then(|| feature(FeatureKind::Text, shape, "text"))?,
        _ => feature(FeatureKind::Vector, shape, dtype),
    }
}

/// A known size; TFDS writes -1 for others.
fn dimension(value: &Value) -> Option<usize> {
    let size = value.as_i64().or_else(|| value.as_str()?.parse().ok())?;
    usize::try_from(size).ok().filter(|size| (1..=MAX_VALUES).contains(size))
}
