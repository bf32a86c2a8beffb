//! Whether a LeRobot dataset is damaged: counts, every row of the data files, every camera.

use super::check_listed::check_listed;
#[cfg(feature = "ffmpeg")]
use super::check_listed::check_spans;
use super::dataset::LeRobotDataset;
use super::episodes::listed_tasks;
#[cfg(feature = "ffmpeg")]
use super::files;
use super::images::EmbeddedImages;
use super::meta::read_stats;
use super::table::{Table, append_f64, open_table};
use crate::check::findings::{Depth, Findings};
use crate::check::generic::decode_all;
use crate::check::statistics::{compare, note_constants, note_unverified};
use crate::error::DataError;
use crate::frames::FrameSize;
use crate::images::{EncodedImages, shown_size};
use crate::request::float32_error;
use crate::statistics::Statistics;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

pub(super) fn check(dataset: &Arc<LeRobotDataset>, depth: Depth, findings: &mut Findings) {
    check_counts(dataset, findings);
    check_listed(dataset, findings);
    check_rows(dataset, findings);
    check_tasks(dataset, findings);
    check_cameras(dataset, depth, findings);
}

/// Counts in `meta/info.json` against the episodes and tasks.
fn check_counts(dataset: &LeRobotDataset, findings: &mut Findings) {
    let info = dataset.info();
    let path = dataset.root().join("meta/info.json");
    let counts = [
        ("total_episodes", info.total_episodes, dataset.episodes().len() as u64, "episodes", info.episodes_path()),
        ("total_frames", info.total_frames, dataset.num_frames(), "frames", info.episodes_path()),
        ("total_tasks", info.total_tasks, dataset.tasks().len() as u64, "tasks", info.tasks_path()),
    ];
    for (key, said, found, what, file) in counts {
        if said != found {
            findings.add(&path, &format!("{key} is {said}, but there are {found} {what} in {file}"));
        }
    }
    let mut next_row = 0;
    for (position, episode) in dataset.episodes().iter().enumerate() {
        if episode.index != position as u64 {
            findings
                .add(&dataset.root().join(dataset.info().episodes_path()), &format!("episode {position} is missing"));
            break;
        }
        if episode.from_row != next_row {
            let what = format!("episode {} starts at row {}, not at row {next_row}", episode.index, episode.from_row);
            findings.add(&dataset.root().join(dataset.info().episodes_path()), &what);
        }
        next_row = episode.to_row;
    }
}

/// Columns of every LeRobot dataset: its `DEFAULT_FEATURES`.
const DEFAULT_COLUMNS: [&str; 5] = ["timestamp", "frame_index", "episode_index", "index", "task_index"];

/// Every row of the data files: indices, times, tasks, values.
fn check_rows(dataset: &LeRobotDataset, findings: &mut Findings) {
    let mut statistics: BTreeMap<&str, Statistics> = BTreeMap::new();
    for column in DEFAULT_COLUMNS.iter().filter(|column| !dataset.features().contains_key(**column)) {
        let path = dataset.root().join("meta/info.json");
        findings.add(&path, &format!("features lacks `{column}`, which every LeRobot dataset has"));
    }
    let firsts: Vec<_> = dataset.data_files().collect();
    let mut is_whole = true;
    for (nth, (path, first_row)) in firsts.iter().enumerate() {
        let end_row = firsts.get(nth + 1).map_or(dataset.num_frames(), |(_, row)| *row);
        let checked = open_table(dataset.root(), path).and_then(|table| {
            if table.num_rows() != end_row - first_row {
                let what = format!("has {} rows, but its episodes have {}", table.num_rows(), end_row - first_row);
                findings.add(path, &what);
            }
            for column in DEFAULT_COLUMNS {
                if let Err(error) = table.root_of(column) {
                    findings.error(&error);
                }
            }
            (0..table.num_groups())
                .try_for_each(|group| check_group(dataset, &table, group, *first_row, &mut statistics, findings))
        });
        if let Err(error) = checked {
            findings.error(&error);
            is_whole = false;
        }
    }
    if !is_whole {
        return;
    }
    let path = dataset.root().join(dataset.info().stats_path());
    match read_stats(dataset.root(), dataset.info()) {
        Ok(said) => {
            compare(&said, &statistics).iter().for_each(|what| findings.add(&path, what));
            note_unverified(&said, &statistics, findings);
        }
        Err(error) => findings.error(&error),
    }
    note_constants(&statistics, dataset.episodes().len(), findings);
    let (num_rows, num_features) = (dataset.num_frames(), statistics.len());
    findings.verified(format!(
        "{num_rows} rows: indices, times, tasks, every value of {num_features} features and their statistics"
    ));
}

/// The tasks that the list of episodes has against those of the rows, which decide.
fn check_tasks(dataset: &LeRobotDataset, findings: &mut Findings) {
    let listed = match listed_tasks(dataset.root(), dataset.info()) {
        Ok(listed) => listed,
        Err(error) => return findings.error(&error),
    };
    for episode in dataset.episodes() {
        // A row that names no task, or a file that cannot be read, is reported where rows are checked.
        let Ok(found) = dataset.tasks_of(episode.from_row..episode.to_row) else { continue };
        let Some(listed) = listed.get(&episode.index) else { continue };
        if found.iter().copied().collect::<BTreeSet<_>>() != listed.iter().map(String::as_str).collect() {
            let what = format!(
                "episode {} lists the tasks {listed:?}, but its rows have {found:?} (task_index decides)",
                episode.index
            );
            findings.add(&dataset.root().join(dataset.info().episodes_path()), &what);
        }
    }
}

/// Checks one row group. The first failure to read a file is its last finding.
fn check_group<'a>(
    dataset: &'a LeRobotDataset,
    table: &Table,
    group: usize,
    first_row: u64,
    statistics: &mut BTreeMap<&'a str, Statistics>,
    findings: &mut Findings,
) -> Result<(), DataError> {
    let rows: Vec<u64> = table.group_rows(group).map(|local| first_row + local).collect();
    for key in dataset.vector_keys() {
        let width = dataset.vector_width(key)?;
        let values = table.read_values(key, group, width, first_row, append_f64)?;
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            findings.add(table.path(), &format!("column `{key}` is {} at row {}", values[at], rows[at / width]));
        }
        check_column(dataset, table.path(), key, &rows, &values, findings);
        statistics.entry(key).or_insert_with(|| Statistics::new(width)).add(&values);
    }
    Ok(())
}

/// Columns whose values follow from the row.
fn check_column(
    dataset: &LeRobotDataset,
    path: &Path,
    key: &str,
    rows: &[u64],
    values: &[f64],
    findings: &mut Findings,
) {
    let mut wrong = |row: u64, what: String| findings.add(path, &format!("row {row}: {what}"));
    for (&row, &value) in rows.iter().zip(values) {
        let Ok(episode) = dataset.episode_of(row) else {
            wrong(row, "belongs to no episode".into());
            return;
        };
        let frame = row - episode.from_row;
        let expected = match key {
            "index" => row,
            "episode_index" => episode.index,
            "frame_index" => frame,
            "task_index" => {
                let num_tasks = dataset.tasks().len();
                if !(0.0..num_tasks as f64).contains(&value) {
                    wrong(
                        row,
                        format!("task_index is {value}, but {} has {num_tasks} tasks", dataset.info().tasks_path()),
                    );
                    return;
                }
                continue;
            }
            "timestamp" => {
                let regular = frame as f64 / dataset.fps();
                if (value - regular).abs() > dataset.tolerance_s() + float32_error(regular) {
                    wrong(
                        row,
                        format!("timestamp is {value:.6} s, not {regular:.6} s ({} frames per second)", dataset.fps()),
                    );
                    return;
                }
                continue;
            }
            _ => return,
        };
        if value != expected as f64 {
            wrong(row, format!("{key} is {value}, not {expected}"));
            return;
        }
    }
}

/// Every camera: files that exist and are whole, and an image for every frame.
fn check_cameras(dataset: &Arc<LeRobotDataset>, depth: Depth, findings: &mut Findings) {
    for camera in dataset.camera_keys() {
        let checked = match (dataset.features()[camera].dtype.as_str(), depth) {
            ("video", _) => check_video(dataset, camera, depth, findings),
            (_, Depth::Images) => {
                check_sizes(dataset, camera, findings).and_then(|()| decode_all(dataset, camera, findings))
            }
            (_, Depth::Headers) => Ok(()),
        };
        if let Err(error) = checked {
            findings.error(&error);
        }
        if depth == Depth::Headers {
            findings.not_verified(format!("images of {camera} (--quick)"));
        }
    }
    for (key, _) in dataset.features().iter().filter(|(_, feature)| feature.is_depth()) {
        findings.not_verified(format!("depth maps of {key}"));
    }
}

/// Every embedded image has the size in `meta/info.json`. The first image of an episode with another size is reported.
fn check_sizes(dataset: &Arc<LeRobotDataset>, camera: &str, findings: &mut Findings) -> Result<(), DataError> {
    let Some(said) = dataset.camera(camera)?.frame_size() else { return Ok(()) };
    let images = EmbeddedImages { dataset: Arc::clone(dataset), camera: camera.to_owned() };
    for episode in dataset.episodes() {
        for row in episode.from_row..episode.to_row {
            // What cannot be read is reported when it is decoded.
            let Some((path, found)) =
                images.image(row).ok().and_then(|image| Some((image.path, shown_size(&image.bytes).ok()?)))
            else {
                break;
            };
            if found != said {
                findings.add(&path, &format!("row {row} of `{camera}`: {}", other_size(found, said)));
                break;
            }
        }
    }
    Ok(())
}

fn other_size(found: FrameSize, said: FrameSize) -> String {
    let FrameSize { height, width } = found;
    format!("images are {width}x{height}, but meta/info.json says {}x{}", said.width, said.height)
}

/// How a video file differs from `meta/info.json`.
#[cfg(feature = "ffmpeg")]
pub(super) fn disagreements(dataset: &LeRobotDataset, camera: &str, video: &crate::video::VideoInfo) -> Vec<String> {
    let mut found = Vec::new();
    let feature = &dataset.features()[camera];
    if let Some(said) = feature.frame_size().filter(|said| *said != video.size) {
        found.push(other_size(video.size, said));
    }
    let fps = dataset.fps();
    if let Some(of_video) = video.fps().filter(|of_video| (of_video / fps - 1.0).abs() > MAX_FPS_ERROR) {
        found.push(format!("the video has {of_video:.3} frames per second, but meta/info.json says {fps}"));
    }
    let said = feature.recorded("video.codec").and_then(|codec| codec.as_str());
    if let Some(said) = said.filter(|said| codec_of(said) != video.codec) {
        found.push(format!("the video is {}, but meta/info.json says {said}", video.codec));
    }
    found
}

/// Largest relative difference between the frame rate of a video and that of its dataset.
#[cfg(feature = "ffmpeg")]
const MAX_FPS_ERROR: f64 = 0.005;

/// FFmpeg's name of a codec; recorders also write the name of an encoder or of a container's format.
#[cfg(feature = "ffmpeg")]
fn codec_of(name: &str) -> &str {
    match name {
        "libsvtav1" | "libaom-av1" | "librav1e" | "av01" => "av1",
        "libx264" | "avc" | "avc1" | "h264_nvenc" => "h264",
        "libx265" | "h265" | "hvc1" | "hev1" | "hevc_nvenc" => "hevc",
        "libvpx-vp9" => "vp9",
        "mp4v" => "mpeg4",
        other => other,
    }
}

#[cfg(feature = "ffmpeg")]
fn check_video(
    dataset: &Arc<LeRobotDataset>,
    camera: &str,
    depth: Depth,
    findings: &mut Findings,
) -> Result<(), DataError> {
    let mut last_frames: BTreeMap<(u32, u32), Option<f64>> = BTreeMap::new();
    let spans = dataset.video_spans(camera)?;
    // An episode is reported once.
    let mut too_late = BTreeSet::new();
    for (episode, span) in dataset.episodes().iter().zip(&spans) {
        let path = dataset.video_path(camera, span);
        let last_frame_s = *last_frames.entry(span.file).or_insert_with(|| {
            match files::inspect(dataset.root(), &path).and_then(|()| crate::video::probe(&path)) {
                Ok(video) => {
                    disagreements(dataset, camera, &video).iter().for_each(|what| findings.add(&path, what));
                    let (said, found) = (episode.num_frames(), video.num_frames as u64);
                    if dataset.info().is_v21() && said != found {
                        findings
                            .add(&path, &format!("has {found} images, but episode {} {said} frames", episode.index));
                    }
                    Some(video.last_frame_s)
                }
                Err(error) => {
                    findings.error(&error);
                    None
                }
            }
        });
        let Some(last_frame_s) = last_frame_s else { continue };
        let Ok(timestamp) = dataset.timestamp(episode.to_row - 1) else { continue };
        let last_wanted_s = span.from_s + f64::from(timestamp);
        if last_wanted_s > last_frame_s + dataset.tolerance_s() + float32_error(last_wanted_s) {
            let what = format!(
                "episode {} ends at {last_wanted_s:.4} s, past the last image at {last_frame_s:.4} s",
                episode.index
            );
            findings.add(&path, &what);
            too_late.insert(episode.index);
        }
    }
    check_spans(dataset, camera, &spans, &too_late, findings);
    findings.verified(format!("headers of {} files of {camera}", last_frames.len()));
    // What is damaged as a whole is reported once, not once per episode.
    let is_whole = last_frames.values().all(Option::is_some);
    if is_whole && depth == Depth::Images { decode_all(dataset, camera, findings) } else { Ok(()) }
}

#[cfg(not(feature = "ffmpeg"))]
fn check_video(
    dataset: &Arc<LeRobotDataset>,
    camera: &str,
    _depth: Depth,
    findings: &mut Findings,
) -> Result<(), DataError> {
    let spans = dataset.video_spans(camera)?;
    for span in spans {
        let path = dataset.video_path(camera, &span);
        if !path.exists() {
            findings.add(&path, "there is no such file");
        }
    }
    Ok(())
}
