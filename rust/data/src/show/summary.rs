//! What is in a dataset, as text.

use super::here::EpisodesHere;
use crate::error::DataError;
use crate::formats::{Dataset, FeatureKind};
use crate::request::EpisodeSpan;
use std::{
    collections::BTreeMap,
    fmt::{Display, Write},
    path::Path,
};

/// What is in the dataset at `root`, as lines of text.
///
/// # Errors
/// When a file is missing or damaged.
pub fn summary(root: &Path, dataset: &dyn Dataset) -> Result<String, DataError> {
    let description = dataset.describe();
    let mut text = String::new();
    let mut line = |name: &str, value: &dyn Display| {
        let _ = writeln!(text, "{name:<11} {value}"); // writing to a string cannot fail
    };
    line("dataset", &root.display());
    line("format", &description.format);
    line("fingerprint", &description.fingerprint);
    if let Some(robot) = &description.robot {
        line("robot", robot);
    }
    let (fps, num_frames) = (description.fps, description.num_frames);
    let seconds = |frames: u64| frames as f64 / fps;
    if description.is_fps_known {
        line("frames", &format!("{num_frames} at {fps} per second, {}", duration(seconds(num_frames))));
    } else {
        line("frames", &format!("{num_frames}; how many a second has is for the configuration to say"));
    }
    let episodes = dataset.episodes();
    let lengths: Vec<u64> = episodes.iter().map(EpisodeSpan::num_frames).collect();
    if let (Some(&shortest), Some(&longest)) = (lengths.iter().min(), lengths.iter().max()) {
        let mean = num_frames as f64 / lengths.len() as f64;
        let (short, long) = (seconds(shortest), seconds(longest));
        let time = if description.is_fps_known { format!(" ({short:.1} to {long:.1} s)") } else { String::new() };
        let range = format!("{shortest} to {longest} frames{time}, mean {mean:.0}");
        line("episodes", &format!("{} of {range}", lengths.len()));
    }
    let here = EpisodesHere::of(dataset)?;
    if let Some(part) = here.part() {
        line("here", &part);
    }
    for key in description.keys(FeatureKind::Camera) {
        let size = description.features[key].frame_size();
        let size = size.map_or("unknown size".into(), |size| format!("{}x{}", size.width, size.height));
        line("camera", &format!("{key}  {size}, {}", dataset.storage_of(key)?));
    }
    for key in description.keys(FeatureKind::Depth) {
        line("depth", &format!("{key}  not read"));
    }
    let has_images = |kind| matches!(kind, FeatureKind::Camera | FeatureKind::Depth);
    for (key, feature) in description.features.iter().filter(|(_, feature)| !has_images(feature.kind)) {
        let names = if feature.names.is_empty() { String::new() } else { format!("  {}", feature.names.join(", ")) };
        line("feature", &format!("{key}  {} {:?}{names}", feature.dtype, feature.shape));
    }
    for (task, num_episodes) in episodes_by_task(dataset, &here.with_rows)? {
        line("task", &format!("{num_episodes:>5} episodes  {task}"));
    }
    Ok(text)
}

/// Number of episodes with each task, in the dataset's order of tasks.
fn episodes_by_task<'a>(
    dataset: &'a dyn Dataset,
    episodes: &[EpisodeSpan],
) -> Result<Vec<(&'a str, usize)>, DataError> {
    let tasks = &dataset.describe().tasks;
    if tasks.is_empty() {
        return Ok(Vec::new());
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for span in episodes {
        for task in dataset.tasks_of(span)? {
            *counts.entry(task).or_default() += 1;
        }
    }
    Ok(tasks.iter().map(|task| (task.as_str(), counts.get(task).copied().unwrap_or(0))).collect())
}

fn duration(seconds: f64) -> String {
    match seconds {
        ..120.0 => format!("{seconds:.0} s"),
        ..7200.0 => format!("{:.1} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}
