//! LeRobot v2.1: the metadata is in files of JSON lines, and each episode has a data file and, for each camera, a video of its own.
//!
//! Rows, columns, times and images are those of v3; a v2.1 dataset reads the same samples before LeRobot's own conversion as after it.

use super::episodes::{Episode, Episodes, VideoSpan};
use super::files;
use super::meta::{Info, flatten, without_python_numbers};
use crate::error::DataError;
use crate::formats::FeatureStats;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, ErrorKind, Read},
    path::Path,
};

/// `codebase_version` of the format.
pub(super) const VERSION: &str = "v2.1";
pub(super) const TASKS: &str = "meta/tasks.jsonl";
pub(super) const EPISODES: &str = "meta/episodes.jsonl";
pub(super) const STATS: &str = "meta/episodes_stats.jsonl";

/// Largest index and length of an episode.
const MAX_INDEX: u64 = 1 << 31;

/// A line of `meta/tasks.jsonl`.
#[derive(Deserialize)]
struct Task {
    task_index: usize,
    task: String,
}

/// A line of `meta/episodes.jsonl`.
#[derive(Deserialize)]
struct EpisodeLine {
    episode_index: u64,
    length: u64,
    tasks: Vec<String>,
}

/// A line of `meta/episodes_stats.jsonl`.
#[derive(Deserialize)]
struct EpisodeStats {
    stats: BTreeMap<String, Value>,
}

/// Longer lines are none that LeRobot writes.
const MAX_LINE_BYTES: u64 = 16 << 20;

/// The values of a file of JSON lines.
///
/// # Errors
/// The file is missing or damaged: names the line.
fn lines<T: DeserializeOwned>(root: &Path, name: &str) -> Result<Vec<T>, DataError> {
    let path = root.join(name);
    files::inspect(root, &path)?;
    let file = File::open(&path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => DataError::file(&path, "the file is missing", "fetch it again"),
        _ => DataError::io(&path)(error),
    })?;
    let mut values = Vec::new();
    let mut reader = BufReader::new(file);
    for number in 1.. {
        let mut line = String::new();
        let num_bytes = (&mut reader).take(MAX_LINE_BYTES).read_line(&mut line).map_err(DataError::io(&path))?;
        if num_bytes == 0 {
            break;
        }
        if num_bytes as u64 == MAX_LINE_BYTES {
            let what = format!("line {number} has {MAX_LINE_BYTES} bytes or more");
            return Err(DataError::file(&path, what, "fetch the file again"));
        }
        if line.trim().is_empty() {
            continue;
        }
        let value = serde_json::from_str(&without_python_numbers(&line)).map_err(|error| {
            DataError::file(&path, format!("line {number} is not what LeRobot writes: {error}"), "fetch the file again")
        })?;
        values.push(value);
    }
    Ok(values)
}

/// Reads the instructions, in the order of their `task_index`.
///
/// # Errors
/// The file is missing or damaged, or its indices are not 0..N.
pub(super) fn read_tasks(root: &Path) -> Result<Vec<String>, DataError> {
    let mut tasks: Vec<Task> = lines(root, TASKS)?;
    tasks.sort_by_key(|task| task.task_index);
    match tasks.iter().enumerate().find(|(nth, task)| *nth != task.task_index) {
        None => Ok(tasks.into_iter().map(|task| task.task).collect()),
        Some((nth, _)) => {
            let what = format!("has {} tasks, but none with the task_index {nth}", tasks.len());
            Err(DataError::file(&root.join(TASKS), what, "fetch or record it again"))
        }
    }
}

/// Reads all episodes, sorted by index. An episode's data file is (chunk, episode).
///
/// # Errors
/// The file is missing or damaged, an episode is empty, or has two lengths.
pub(super) fn read_episodes(root: &Path, info: &Info) -> Result<Episodes, DataError> {
    let bad = |what: String| DataError::file(&root.join(EPISODES), what, "fetch or record it again");
    let mut found: Vec<(u64, u64)> =
        lines::<EpisodeLine>(root, EPISODES)?.into_iter().map(|line| (line.episode_index, line.length)).collect();
    let num_lines = found.len();
    found.sort_unstable();
    found.dedup();
    if found.len() < num_lines {
        tracing::warn!("{}: {} episodes are listed twice, alike", root.display(), num_lines - found.len());
    }
    if let Some(pair) = found.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(bad(format!("episode {} has both {} and {} frames", pair[0].0, pair[0].1, pair[1].1)));
    }
    let (mut episodes, mut files, mut from_row) = (Vec::with_capacity(found.len()), Vec::new(), 0);
    for (index, length) in found {
        if length == 0 || length > MAX_INDEX || index > MAX_INDEX {
            return Err(bad(format!("episode {index} has {length} frames")));
        }
        episodes.push(Episode { index, from_row, to_row: from_row + length, data_file: files.len() as u32 });
        files.push(file_of(info, index));
        from_row += length;
    }
    if episodes.is_empty() {
        return Err(bad("has no episodes".into()));
    }
    Ok((episodes, files))
}

/// Where each of `episodes` is in the videos of a camera: alone in a file.
pub(super) fn video_spans(info: &Info, episodes: &[Episode]) -> Vec<VideoSpan> {
    let span = |episode: &Episode| {
        let to_s = episode.num_frames() as f64 / info.fps;
        VideoSpan { file: file_of(info, episode.index), from_s: 0.0, to_s }
    };
    episodes.iter().map(span).collect()
}

/// Chunk and index of an episode's files.
fn file_of(info: &Info, episode: u64) -> (u32, u32) {
    ((episode / info.chunks_size()) as u32, episode as u32)
}

/// The tasks that `meta/episodes.jsonl` lists, by the index of the episode.
///
/// # Errors
/// The file is missing or damaged.
pub(super) fn listed_tasks(root: &Path) -> Result<BTreeMap<u64, Vec<String>>, DataError> {
    let episodes = lines::<EpisodeLine>(root, EPISODES)?;
    Ok(episodes.into_iter().map(|line| (line.episode_index, line.tasks)).collect())
}

/// The indices in `meta/episodes.jsonl`, as often as they are there.
///
/// # Errors
/// The file is missing or damaged.
pub(super) fn listed_episodes(root: &Path) -> Result<Vec<u64>, DataError> {
    Ok(lines::<EpisodeLine>(root, EPISODES)?.into_iter().map(|line| line.episode_index).collect())
}

/// Statistics over all episodes, put together from those of each episode as LeRobot's `aggregate_stats` does. Features whose statistics
/// have another form have none, and neither has a dataset without the file.
///
/// # Errors
/// The file is damaged.
pub(super) fn read_stats(root: &Path) -> Result<BTreeMap<String, FeatureStats>, DataError> {
    if !root.join(STATS).exists() {
        return Ok(BTreeMap::new());
    }
    let mut of_episodes: BTreeMap<String, Vec<BTreeMap<String, Vec<f64>>>> = BTreeMap::new();
    for EpisodeStats { stats } in lines(root, STATS)? {
        for (key, stats) in stats {
            let Value::Object(stats) = stats else { continue };
            let flat = |value: &Value| {
                let mut out = Vec::new();
                flatten(value, &mut out);
                out
            };
            let values = stats.iter().map(|(name, value)| (name.clone(), flat(value))).collect();
            of_episodes.entry(key).or_default().push(values);
        }
    }
    let all = of_episodes.into_iter();
    Ok(all.filter_map(|(key, episodes)| Some((key, FeatureStats { values: aggregate(&episodes)? }))).collect())
}

/// Statistics of the union of parts. None where a part lacks one of mean, std, min, max and count, or has another width.
fn aggregate(parts: &[BTreeMap<String, Vec<f64>>]) -> Option<BTreeMap<String, Vec<f64>>> {
    let width = parts.first()?.get("mean")?.len();
    let of = |name: &str| -> Option<Vec<&Vec<f64>>> {
        parts.iter().map(|part| part.get(name).filter(|values| values.len() == width)).collect()
    };
    let counts: Vec<f64> = parts.iter().map(|part| part.get("count")?.first().copied()).collect::<Option<_>>()?;
    let total: f64 = counts.iter().sum();
    let (means, stds, mins, maxs) = (of("mean")?, of("std")?, of("min")?, of("max")?);
    let weighted = |value: &dyn Fn(usize) -> f64| {
        counts.iter().enumerate().map(|(part, count)| count * value(part)).sum::<f64>() / total
    };
    let mut out: BTreeMap<String, Vec<f64>> = BTreeMap::from([("count".to_owned(), vec![total])]);
    let mut add = |name: &str, value: f64| out.entry(name.to_owned()).or_default().push(value);
    for at in 0..width {
        let mean = weighted(&|part| means[part][at]);
        add("mean", mean);
        add("std", weighted(&|part| stds[part][at].powi(2) + (means[part][at] - mean).powi(2)).sqrt());
        add("min", mins.iter().map(|min| min[at]).fold(f64::INFINITY, f64::min));
        add("max", maxs.iter().map(|max| max[at]).fold(f64::NEG_INFINITY, f64::max));
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::aggregate;
    use std::collections::BTreeMap;

    fn stats(values: &[f64]) -> BTreeMap<String, Vec<f64>> {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let std = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt();
        let min = values.iter().copied().fold(f64::INFINITY, f64::min);
        let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        [("count", count), ("mean", mean), ("std", std), ("min", min), ("max", max)]
            .map(|(name, value)| (name.to_owned(), vec![value]))
            .into()
    }

    #[test]
    fn statistics_of_parts_are_put_together_to_those_of_the_whole() {
        let (first, second) = ([1.0, 2.0, 6.0], [-4.0, 0.5]);
        let whole = stats(&[first.as_slice(), second.as_slice()].concat());
        for (name, values) in aggregate(&[stats(&first), stats(&second)]).unwrap() {
            assert!((values[0] - whole[&name][0]).abs() < 1e-12, "{name}: {values:?}");
        }
    }
}
