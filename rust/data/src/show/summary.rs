//! What is in a dataset, as text.

use crate::{DataError, lerobot::Dataset};
use std::{collections::BTreeMap, fmt::Write};

/// What is in a dataset, as lines of text.
///
/// # Errors
/// When a file is missing or damaged.
pub fn summary(dataset: &Dataset) -> Result<String, DataError> {
    let mut text = String::new();
    let info = dataset.info();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<10} {value}"); // writing to a string cannot fail
    };
    line("dataset", dataset.root().display().to_string());
    line("format", format!("LeRobot {}", info.codebase_version));
    if let Some(robot) = &info.robot_type {
        line("robot", robot.clone());
    }
    let lengths: Vec<u64> = dataset.episodes().iter().map(|episode| episode.num_frames()).collect();
    let seconds = |frames: u64| frames as f64 / dataset.fps();
    line(
        "frames",
        format!(
            "{} at {} per second, {}",
            dataset.num_frames(),
            dataset.fps(),
            duration(seconds(dataset.num_frames()))
        ),
    );
    if let (Some(&shortest), Some(&longest)) = (lengths.iter().min(), lengths.iter().max()) {
        let mean = dataset.num_frames() as f64 / lengths.len() as f64;
        let (short, long) = (seconds(shortest), seconds(longest));
        line(
            "episodes",
            format!("{} of {shortest} to {longest} frames ({short:.1} to {long:.1} s), mean {mean:.0}", lengths.len()),
        );
    }
    for key in dataset.camera_keys() {
        line("camera", format!("{key}  {}", camera(dataset, key)?));
    }
    for (key, feature) in dataset.features().iter().filter(|(_, feature)| !feature.is_camera()) {
        let names =
            feature.names.as_ref().filter(|names| !names.is_null()).map_or(String::new(), |names| format!("  {names}"));
        line("feature", format!("{key}  {} {:?}{names}", feature.dtype, feature.shape));
    }
    for (task, num_episodes) in task_counts(dataset)? {
        line("task", format!("{num_episodes:>5} episodes  {task}"));
    }
    Ok(text)
}

/// One line about a camera.
fn camera(dataset: &Dataset, key: &str) -> Result<String, DataError> {
    let feature = dataset.camera(key)?;
    let size = feature.frame_size().map_or("unknown size".into(), |size| format!("{}x{}", size.width, size.height));
    if feature.dtype == "image" {
        return Ok(format!("{size}, pictures embedded in parquet"));
    }
    Ok(format!("{size}, {}", video(dataset, key)?))
}

#[cfg(feature = "ffmpeg")]
fn video(dataset: &Dataset, key: &str) -> Result<String, DataError> {
    let spans = dataset.video_spans(key)?;
    let mut files: Vec<_> = spans.iter().map(|span| span.file).collect();
    files.dedup();
    let Some(&(chunk, file)) = files.first() else { return Ok("no video".into()) };
    let info = crate::video::probe(&dataset.root().join(dataset.info().video_file(key, chunk, file)))?;
    let group = match info.group_size {
        1 => "every frame a key frame".to_owned(),
        size => format!("a key frame every {size}"),
    };
    Ok(format!("{} video, {group}, {} file{}", info.codec, files.len(), if files.len() == 1 { "" } else { "s" }))
}

#[cfg(not(feature = "ffmpeg"))]
fn video(dataset: &Dataset, key: &str) -> Result<String, DataError> {
    let codec = dataset.camera(key)?.info.as_ref().and_then(|info| info["video.codec"].as_str());
    Ok(format!("{} video (this program was built without FFmpeg)", codec.unwrap_or("unknown")))
}

/// Number of episodes with each task, by task index.
fn task_counts(dataset: &Dataset) -> Result<Vec<(&str, usize)>, DataError> {
    let mut counts: BTreeMap<&str, usize> = dataset.tasks().iter().map(|task| (task.as_str(), 0)).collect();
    for episode in dataset.episodes() {
        for task in dataset.tasks_of(episode)? {
            *counts.entry(task).or_default() += 1;
        }
    }
    Ok(dataset.tasks().iter().map(|task| (task.as_str(), counts[task.as_str()])).collect())
}

fn duration(seconds: f64) -> String {
    match seconds {
        ..120.0 => format!("{seconds:.0} s"),
        ..7200.0 => format!("{:.1} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}
