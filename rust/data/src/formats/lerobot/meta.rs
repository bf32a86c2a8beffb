//! The folder `meta/` of a dataset, but for its episodes: `info.json` (rate, features, counts, paths of the files),
//! `tasks.parquet` (instructions) and `stats.json` (statistics).

use super::table::{ints, open_table, texts};
use super::{files, v21};
use crate::error::DataError;
use crate::formats::{Feature, FeatureKind, FeatureStats};
use crate::frames::FrameSize;
use serde::Deserialize;
use serde_json::Value;
use std::{
    borrow::Cow,
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

/// One column of a dataset, or one camera.
#[derive(Debug, Clone, Deserialize)]
pub struct FeatureInfo {
    /// `video`, `image`, `string`, or the element type of a vector (`float32`, `int64`, `bool`, …).
    pub dtype: String,
    /// Sizes: of a camera `[H,W,3]` in pixels, of a vector any number of dimensions.
    pub shape: Vec<usize>,
    /// Names of the dimensions or of their entries, as the recorder wrote them.
    pub names: Option<Value>,
    /// What the recorder knew of a video (`video.codec`, `video.g`, …).
    pub info: Option<Value>,
    /// The same, under the name that older recorders used.
    pub video_info: Option<Value>,
}

impl FeatureInfo {
    /// Whether it has colour images, as a video or embedded in parquet.
    #[must_use]
    pub fn is_camera(&self) -> bool {
        self.has_images() && !self.is_depth()
    }

    /// Whether it has depth maps, stored as a video or as images: as in LeRobot's `depth_keys`.
    #[must_use]
    pub fn is_depth(&self) -> bool {
        let marks = ["is_depth_map", "video.is_depth_map"].map(|key| self.recorded(key).and_then(Value::as_bool));
        self.has_images() && marks.contains(&Some(true))
    }

    fn has_images(&self) -> bool {
        matches!(self.dtype.as_str(), "video" | "image")
    }

    /// What the recorder knew of a video under this name.
    pub(super) fn recorded(&self, key: &str) -> Option<&Value> {
        [&self.info, &self.video_info].into_iter().flatten().find_map(|info| info.get(key))
    }

    /// Whether it consists of numbers or truth values.
    #[must_use]
    pub fn is_vector(&self) -> bool {
        !self.has_images() && self.dtype != "string" && self.dtype != "language"
    }

    /// As every format describes a feature.
    #[must_use]
    pub fn describe(&self) -> Feature {
        let kind = match (self.is_camera(), self.is_depth(), self.is_vector()) {
            (true, ..) => FeatureKind::Camera,
            (_, true, _) => FeatureKind::Depth,
            (.., true) => FeatureKind::Vector,
            _ => FeatureKind::Text,
        };
        let shape = self.frame_size().map_or_else(|| self.shape.clone(), |size| vec![size.height, size.width, 3]);
        let mut names = Vec::new();
        self.names.iter().for_each(|value| leaves(value, &mut names));
        Feature { kind, shape, dtype: self.dtype.clone(), names }
    }

    /// Image size of a camera. Channels may come first or last, as `names` says.
    #[must_use]
    pub fn frame_size(&self) -> Option<FrameSize> {
        let &[a, b, c] = self.shape.as_slice() else { return None };
        let first_name = self.names.as_ref().and_then(|names| names.get(0)).and_then(|name| name.as_str());
        let (height, width) =
            if matches!(first_name, Some("channel" | "channels")) || (a == 3 && c != 3) { (b, c) } else { (a, b) };
        self.has_images().then_some(FrameSize { height, width })
    }
}

/// The texts of a tree of lists and mappings.
fn leaves(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Null => {}
        Value::Array(values) => values.iter().for_each(|value| leaves(value, out)),
        Value::Object(values) => values.values().for_each(|value| leaves(value, out)),
        Value::String(text) => out.push(text.clone()),
        other => out.push(other.to_string()),
    }
}

/// `meta/info.json`. Keys that are not used here are tolerated.
#[derive(Debug, Clone, Deserialize)]
pub struct Info {
    /// Version of the format, `v3.0` or `v2.1`.
    pub codebase_version: String,
    /// Frames per second of every feature.
    pub fps: f64,
    /// Columns and cameras by key.
    pub features: BTreeMap<String, FeatureInfo>,
    /// Number of episodes.
    pub total_episodes: u64,
    /// Number of frames.
    pub total_frames: u64,
    /// Number of tasks.
    pub total_tasks: u64,
    /// Pattern of the data files' paths.
    pub data_path: String,
    /// Pattern of the video files' paths; none in a dataset without videos.
    pub video_path: Option<String>,
    /// What was recorded, in the recorder's words.
    pub robot_type: Option<String>,
    /// Episodes per folder, in v2.1.
    chunks_size: Option<u64>,
    /// The file's content.
    #[serde(skip)]
    text: String,
}

/// Most values of a vector in a row.
const MAX_VALUES: usize = 1 << 20;

/// The part of `info.json` that every version of the format has.
#[derive(Deserialize)]
struct AnyInfo {
    codebase_version: Option<String>,
}

impl Info {
    /// Reads `meta/info.json` of the dataset at `root`.
    ///
    /// # Errors
    /// When `root` is not a dataset, is one of another version, or the file lacks a key.
    pub fn read(root: &Path) -> Result<Self, DataError> {
        let path = root.join("meta/info.json");
        let text = files::read_text(root, &path)?;
        let broken = |error: serde_json::Error| {
            DataError::file(
                &path,
                format!("is not the info.json of a LeRobot dataset: {error}"),
                "fetch the file again",
            )
        };
        let version = serde_json::from_str::<AnyInfo>(&text).map_err(broken)?.codebase_version.unwrap_or_default();
        if !version.starts_with("v3.") && version != v21::VERSION {
            return Err(other_version(root, &version));
        }
        let mut info: Self = serde_json::from_str(&text).map_err(broken)?;
        if info.chunks_size == Some(0) {
            return Err(DataError::file(&path, "chunks_size is 0", "correct it: LeRobot writes 1000"));
        }
        if !(info.fps.is_finite() && info.fps > 0.0) {
            let what = format!("fps is {}, which is not a frame rate", info.fps);
            return Err(DataError::file(&path, what, "correct `fps`"));
        }
        let is_wide = |feature: &FeatureInfo| {
            let num_values = feature.shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
            feature.is_vector() && num_values.is_none_or(|num_values| num_values > MAX_VALUES)
        };
        if let Some((key, feature)) = info.features.iter().find(|(_, feature)| is_wide(feature)) {
            let what = format!("`{key}` has the shape {:?}: more than {MAX_VALUES} values per row", feature.shape);
            return Err(DataError::file(&path, what, "correct its `shape`"));
        }
        for (key, pattern) in [("data_path", Some(&info.data_path)), ("video_path", info.video_path.as_ref())] {
            if let Some(what) = pattern.and_then(|pattern| wrong_pattern(pattern)) {
                return Err(DataError::file(
                    &path,
                    format!("{key} {what}"),
                    "correct it: LeRobot writes paths below the folder",
                ));
            }
        }
        info.text = text;
        Ok(info)
    }

    /// Content of the file.
    pub(super) fn bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// Whether the dataset is of v2.1: each episode has its own files, and the metadata is in JSON lines.
    pub(super) fn is_v21(&self) -> bool {
        self.codebase_version == v21::VERSION
    }

    /// Episodes per folder, in v2.1.
    pub(super) fn chunks_size(&self) -> u64 {
        self.chunks_size.unwrap_or(u64::MAX)
    }

    /// Where the episodes are listed.
    pub(super) fn episodes_path(&self) -> &'static str {
        if self.is_v21() { v21::EPISODES } else { "meta/episodes" }
    }

    /// Where the instructions are.
    pub(super) fn tasks_path(&self) -> &'static str {
        if self.is_v21() { v21::TASKS } else { "meta/tasks.parquet" }
    }

    /// Where the statistics are.
    pub(super) fn stats_path(&self) -> &'static str {
        if self.is_v21() { v21::STATS } else { "meta/stats.json" }
    }

    /// Path of a data file, relative to the dataset's folder; `file` is the episode in v2.1.
    #[must_use]
    pub fn data_file(&self, chunk: u32, file: u32) -> PathBuf {
        fill(&self.data_path, "", chunk, file)
    }

    /// Path of a video file, relative to the dataset's folder.
    #[must_use]
    pub fn video_file(&self, camera: &str, chunk: u32, file: u32) -> PathBuf {
        fill(self.video_path.as_deref().unwrap_or_default(), camera, chunk, file)
    }
}

/// What is wrong with a path pattern: it leads out of the dataset's folder, or has a placeholder that nothing fills.
fn wrong_pattern(pattern: &str) -> Option<String> {
    let path = fill(pattern, "camera", 0, 0);
    let is_below = path.components().all(|part| matches!(part, Component::Normal(_)));
    match path.to_string_lossy().contains(['{', '}']) {
        true => Some(format!("{pattern:?} has an unknown placeholder")),
        false => (!is_below).then(|| format!("{pattern:?} is not a path below the dataset's folder")),
    }
}

/// Fills a path pattern such as `data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet`, or one of v2.1 such as
/// `data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet`.
fn fill(pattern: &str, camera: &str, chunk: u32, file: u32) -> PathBuf {
    let mut path = pattern.replace("{video_key}", camera);
    for (name, index) in
        [("chunk_index", chunk), ("file_index", file), ("episode_chunk", chunk), ("episode_index", file)]
    {
        for (format, text) in
            [(":03d", format!("{index:03}")), (":06d", format!("{index:06}")), ("", index.to_string())]
        {
            path = path.replace(&format!("{{{name}{format}}}"), &text);
        }
    }
    path.into()
}

fn other_version(root: &Path, version: &str) -> DataError {
    let (what, hint) = if version.starts_with("v2.") {
        let name = root.file_name().map_or("dataset".into(), |name| name.to_string_lossy());
        (
            format!("is a LeRobot {version} dataset; v3.0 and v2.1 are read"),
            format!(
                "convert it to v2.1 with LeRobot 0.3: python -m lerobot.datasets.v21.convert_dataset_v20_to_v21 --repo-id=local/{name}"
            ),
        )
    } else {
        (
            format!("has the unknown codebase_version {version:?}; v3.0 and v2.1 are read"),
            "write it with LeRobot 0.4 or newer".into(),
        )
    };
    DataError::Dataset { root: root.to_owned(), what, hint }
}

/// Reads the instructions, in the order of their `task_index`.
///
/// # Errors
/// When the file is missing or damaged, or an index is outside 0..N.
pub(super) fn read_tasks(root: &Path, info: &Info) -> Result<Vec<String>, DataError> {
    if info.is_v21() {
        return v21::read_tasks(root);
    }
    let path = root.join(info.tasks_path());
    if !path.is_file() {
        let hint = "it has the instructions: fetch the dataset's folder meta again";
        return Err(DataError::file(&path, "the file is missing", hint));
    }
    let table = open_table(root, &path)?;
    let names = table.column_names();
    // The text is the index of a pandas frame: its column is named after the index, if that has a name.
    let text = names.iter().copied().find(|name| *name != "task_index").unwrap_or("task");
    let bad = |what: String| DataError::file(table.path(), what, "fetch or record it again");
    let mut tasks: Vec<Option<String>> = Vec::new();
    for batch in table.read(&["task_index", text])? {
        let indices = ints(batch.column(0)).map_err(|what| bad(format!("column `task_index` {what}")))?;
        let texts = texts(batch.column(1)).map_err(|what| bad(format!("column `{text}` {what}")))?;
        for (index, text) in indices.into_iter().zip(texts) {
            let slot = usize::try_from(index).ok().filter(|&slot| slot < table.num_rows() as usize);
            let slot = slot.ok_or_else(|| bad(format!("task_index {index} is outside 0..{}", table.num_rows())))?;
            tasks.resize(tasks.len().max(slot + 1), None);
            tasks[slot] = Some(text);
        }
    }
    let whole: Option<Vec<String>> = tasks.into_iter().collect();
    whole.ok_or_else(|| bad("has a task_index twice, so that another is missing".into()))
}

/// Reads the statistics of the whole dataset; none where there is no such file.
///
/// # Errors
/// When the file is not what LeRobot writes.
pub(super) fn read_stats(root: &Path, info: &Info) -> Result<BTreeMap<String, FeatureStats>, DataError> {
    if info.is_v21() {
        return v21::read_stats(root);
    }
    let path = root.join(info.stats_path());
    if !path.exists() {
        return Ok(BTreeMap::new());
    }
    let text = files::read_text(root, &path)?;
    let tree: BTreeMap<String, Value> = serde_json::from_str(&without_python_numbers(&text)).map_err(|error| {
        DataError::file(&path, format!("is not the stats.json of a LeRobot dataset: {error}"), "fetch the file again")
    })?;
    let flat = |value: &Value| {
        let mut out = Vec::new();
        flatten(value, &mut out);
        out
    };
    // A feature whose statistics have another form has none; whoever needs them says so.
    let stats_of = |(key, stats): (String, Value)| {
        let values = stats.as_object()?.iter().map(|(name, value)| (name.clone(), flat(value))).collect();
        Some((key, FeatureStats { values }))
    };
    Ok(tree.into_iter().filter_map(stats_of).collect())
}

/// JSON without the numbers that only Python's `json` reads and writes: each `NaN` and `Infinity` outside strings becomes `null`.
pub(super) fn without_python_numbers(text: &str) -> Cow<'_, str> {
    const NUMBERS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
    if !NUMBERS.iter().any(|number| text.contains(number)) {
        return Cow::Borrowed(text);
    }
    let (mut out, mut rest, mut in_string) = (String::with_capacity(text.len()), text, false);
    while let Some(character) = rest.chars().next() {
        let number = if in_string { None } else { NUMBERS.iter().find(|number| rest.starts_with(**number)) };
        let len = match (number, character) {
            (Some(number), _) => number.len(),
            // An escaped quote does not end the string.
            (None, '\\') => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            (None, character) => character.len_utf8(),
        };
        in_string ^= character == '"';
        out.push_str(if number.is_some() { "null" } else { &rest[..len] });
        rest = &rest[len..];
    }
    Cow::Owned(out)
}

/// Appends all numbers of nested lists; what is not a number is NaN.
pub(super) fn flatten(value: &Value, out: &mut Vec<f64>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| flatten(value, out)),
        Value::Bool(value) => out.push(f64::from(u8::from(*value))),
        other => out.push(other.as_f64().unwrap_or(f64::NAN)),
    }
}

#[cfg(test)]
mod tests {
    use super::{fill, without_python_numbers};

    #[test]
    fn numbers_that_only_python_knows_are_null_outside_of_texts() {
        let text = r#"{"a NaN \"NaN": [NaN, -Infinity, 1.5, Infinity]}"#;
        assert_eq!(without_python_numbers(text), r#"{"a NaN \"NaN": [null, null, 1.5, null]}"#);
    }

    #[test]
    fn a_path_pattern_pads_its_indices() {
        let path = fill("videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4", "cam", 2, 1234);
        assert_eq!(path.to_str(), Some("videos/cam/chunk-002/file-1234.mp4"));
        let path = fill("videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4", "cam", 2, 2034);
        assert_eq!(path.to_str(), Some("videos/chunk-002/cam/episode_002034.mp4"));
    }
}
