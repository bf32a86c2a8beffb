//! What is in a dataset, as text.

use crate::error::DataError;
use crate::formats::{Dataset, FeatureKind};
use crate::request::EpisodeSpan;
use std::{
    collections::{BTreeMap, HashSet},
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
    for (task, num_episodes) in episodes_by_task(dataset, here.with_rows())? {
        line("task", &format!("{num_episodes:>5} episodes  {task}"));
    }
    Ok(text)
}

/// The episodes whose files are in a dataset's folder.
pub(super) struct EpisodesHere {
    episodes: Vec<EpisodeSpan>,
    with_rows: Vec<EpisodeSpan>,
    /// Those with rows that a camera shows, by camera.
    pub(super) with_images: BTreeMap<String, HashSet<EpisodeSpan>>,
}

impl EpisodesHere {
    /// # Errors
    /// Metadata cannot be read.
    pub(super) fn of(dataset: &dyn Dataset) -> Result<Self, DataError> {
        let episodes = dataset.episodes();
        let chosen = |among: &[EpisodeSpan], are_here: Vec<bool>| {
            among.iter().zip(are_here).filter(|(_, is_here)| *is_here).map(|(span, _)| *span).collect::<Vec<_>>()
        };
        let with_rows = chosen(&episodes, dataset.are_here(None, &episodes)?);
        let mut with_images = BTreeMap::new();
        for camera in dataset.describe().keys(FeatureKind::Camera) {
            let shown = chosen(&with_rows, dataset.are_here(Some(camera), &with_rows)?);
            with_images.insert(camera.to_owned(), shown.into_iter().collect());
        }
        Ok(Self { episodes, with_rows, with_images })
    }

    fn with_rows(&self) -> &[EpisodeSpan] {
        &self.with_rows
    }

    /// How much is here, in words, where it is not everything.
    fn part(&self) -> Option<String> {
        let num_episodes = self.episodes.len();
        let cameras = self.with_images.iter().map(|(camera, spans)| (camera.as_str(), spans.len()));
        let counts: Vec<_> = [("rows", self.with_rows.len())].into_iter().chain(cameras).collect();
        let is_whole = counts.iter().all(|(_, count)| *count == num_episodes);
        let parts = counts.iter().map(|(what, count)| format!("{what} of {count}"));
        (!is_whole).then(|| format!("a part of the {num_episodes} episodes: {}", parts.collect::<Vec<_>>().join(", ")))
    }
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
