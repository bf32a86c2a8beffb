//! Whether a LeRobot dataset is damaged: counts, every row of the data files, every camera.

use super::dataset::LeRobotDataset;
use super::table::{Table, append_f64};
use crate::check::findings::{Depth, Findings};
use crate::check::generic::decode_all;
use crate::check::statistics::{Statistics, compare};
use crate::error::DataError;
use crate::formats::Dataset;
use std::{collections::BTreeMap, path::Path, sync::Arc};

pub(super) fn check(dataset: &Arc<LeRobotDataset>, depth: Depth, findings: &mut Findings) {
    check_counts(dataset, findings);
    check_rows(dataset, findings);
    check_cameras(dataset, depth, findings);
}

/// Counts in `meta/info.json` against the episodes and tasks.
fn check_counts(dataset: &LeRobotDataset, findings: &mut Findings) {
    let info = dataset.info();
    let path = dataset.root().join("meta/info.json");
    let counts = [
        ("total_episodes", info.total_episodes, dataset.episodes().len() as u64, "episodes in meta/episodes"),
        ("total_frames", info.total_frames, dataset.num_frames(), "frames in meta/episodes"),
        ("total_tasks", info.total_tasks, dataset.tasks().len() as u64, "tasks in meta/tasks.parquet"),
    ];
    for (key, said, found, what) in counts {
        if said != found {
            findings.add(&path, &format!("{key} is {said}, but there are {found} {what}"));
        }
    }
    let mut next_row = 0;
    for (position, episode) in dataset.episodes().iter().enumerate() {
        if episode.index != position as u64 {
            findings.add(&dataset.root().join("meta/episodes"), &format!("episode {position} is missing"));
            break;
        }
        if episode.from_row != next_row {
            let what = format!("episode {} starts at row {}, not at row {next_row}", episode.index, episode.from_row);
            findings.add(&dataset.root().join("meta/episodes"), &what);
        }
        next_row = episode.to_row;
    }
}

/// How far the steps between timestamps may be from 1/fps, seconds: LeRobot's `tolerance_s`.
const STEP_TOLERANCE_S: f64 = 1e-4;

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
        let checked = Table::open(path).and_then(|table| {
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
    if is_whole {
        let path = dataset.root().join("meta/stats.json");
        compare(&dataset.describe().statistics, &statistics).iter().for_each(|what| findings.add(&path, what));
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
        let mut values = Vec::with_capacity(rows.len() * width);
        for array in table.read_group(key, group)? {
            append_f64(&array, &mut values)
                .map_err(|what| DataError::file(table.path(), format!("column `{key}` {what}"), "record it again"))?;
        }
        if values.len() != rows.len() * width {
            let what = format!("column `{key}` does not have {width} values per row");
            return Err(DataError::file(table.path(), what, "compare it with meta/info.json"));
        }
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
                    wrong(row, format!("task_index is {value}, but meta/tasks.parquet has {num_tasks} tasks"));
                    return;
                }
                continue;
            }
            "timestamp" => {
                let regular = frame as f64 / dataset.fps();
                // float32 seconds: long episodes are coarser than the tolerance.
                if (value - regular).abs() > STEP_TOLERANCE_S + regular * f64::from(f32::EPSILON) {
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
            (_, Depth::Images) => decode_all(dataset, camera, findings),
            (_, Depth::Headers) => Ok(()),
        };
        if let Err(error) = checked {
            findings.error(&error);
        }
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
    for (episode, span) in dataset.episodes().iter().zip(&spans) {
        let path = dataset.root().join(dataset.info().video_file(camera, span.file.0, span.file.1));
        let last_frame_s = *last_frames.entry(span.file).or_insert_with(|| match crate::video::probe(&path) {
            Ok(video) => Some(video.last_frame_s),
            Err(error) => {
                findings.error(&error);
                None
            }
        });
        let Some(last_frame_s) = last_frame_s else { continue };
        let Ok(timestamp) = dataset.timestamp(episode.to_row - 1) else { continue };
        let last_wanted_s = span.from_s + f64::from(timestamp);
        if last_wanted_s > last_frame_s + crate::request::TOLERANCE_S {
            let what = format!(
                "episode {} ends at {last_wanted_s:.4} s, past the last image at {last_frame_s:.4} s",
                episode.index
            );
            findings.add(&path, &what);
        }
    }
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
        let path = dataset.root().join(dataset.info().video_file(camera, span.file.0, span.file.1));
        if !path.exists() {
            findings.add(&path, "there is no such file");
        }
    }
    Ok(())
}
