//! Whether the list of episodes agrees with itself and with the files that are there.

use super::dataset::LeRobotDataset;
#[cfg(feature = "ffmpeg")]
use super::episodes::VideoSpan;
use super::episodes::{Episode, listed_lengths, listed_twice};
use crate::check::findings::Findings;
use crate::error::DataError;
#[cfg(feature = "ffmpeg")]
use std::collections::BTreeMap;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Folders below `data/` and `videos/` that are looked into, one in the other.
const MAX_FOLDERS: usize = 4;

/// Episodes that are listed twice or with another length than they have rows, and files that no episode is in.
pub(super) fn check_listed(dataset: &LeRobotDataset, findings: &mut Findings) {
    let (root, info) = (dataset.root(), dataset.info());
    let path = root.join(info.episodes_path());
    match listed_twice(root, info) {
        Ok(twice) => {
            twice.iter().for_each(|episode| findings.add(&path, &format!("episode {episode} is listed twice, alike")));
        }
        Err(error) => findings.error(&error),
    }
    match listed_lengths(root, info) {
        Ok(lengths) => {
            for Episode { index, from_row, to_row, .. } in dataset.episodes() {
                if let Some(length) = lengths.get(index).filter(|length| **length != to_row - from_row) {
                    let what = format!("episode {index} has the length {length}, but the rows {from_row}..{to_row}");
                    findings.add(&path, &what);
                }
            }
        }
        Err(error) => findings.error(&error),
    }
    if let Err(error) = check_orphans(dataset, findings) {
        findings.error(&error);
    }
}

/// Tables and videos below `data/` and `videos/` that have no episode.
fn check_orphans(dataset: &LeRobotDataset, findings: &mut Findings) -> Result<(), DataError> {
    let root = dataset.root();
    let mut named: BTreeSet<PathBuf> = dataset.data_files().map(|(path, _)| path.to_owned()).collect();
    let mut unread = Vec::new();
    for (key, feature) in dataset.features() {
        if feature.is_depth() {
            unread.push(key.as_str());
        } else if feature.dtype == "video" {
            named.extend(dataset.video_spans(key)?.iter().map(|span| dataset.video_path(key, span)));
        }
    }
    for (folder, extension) in [("data", "parquet"), ("videos", "mp4")] {
        let mut found = Vec::new();
        list(&root.join(folder), extension, MAX_FOLDERS, &mut found)?;
        let is_unread = |path: &Path| path.iter().any(|part| unread.iter().any(|key| part == *key));
        for path in found.iter().filter(|path| !named.contains(*path) && !is_unread(path)) {
            findings.add(path, "no episode is in this file");
        }
    }
    Ok(())
}

/// The files with an extension in a folder and in those below it, in order.
fn list(folder: &Path, extension: &str, max_folders: usize, found: &mut Vec<PathBuf>) -> Result<(), DataError> {
    if !folder.is_dir() {
        return Ok(());
    }
    let entries = fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    let mut paths: Vec<PathBuf> = entries.map_err(DataError::io(folder))?;
    paths.sort();
    for path in paths {
        if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        } else if max_folders > 0 {
            list(&path, extension, max_folders - 1, found)?;
        }
    }
    Ok(())
}

/// The stretches of videos of a camera: as long as their episodes, and one after the other. Episodes in `reported` are left out.
#[cfg(feature = "ffmpeg")]
pub(super) fn check_spans(
    dataset: &LeRobotDataset,
    camera: &str,
    spans: &[VideoSpan],
    reported: &BTreeSet<u64>,
    findings: &mut Findings,
) {
    let half_a_frame_s = 0.5 / dataset.fps();
    let mut before: BTreeMap<(u32, u32), (u64, &VideoSpan)> = BTreeMap::new();
    let episodes = dataset.episodes().iter().zip(spans).filter(|(episode, _)| !reported.contains(&episode.index));
    for (episode, span) in episodes {
        let path = dataset.video_path(camera, span);
        let (index, num_frames) = (episode.index, episode.num_frames());
        let (found_s, wanted_s) = (span.to_s - span.from_s, num_frames as f64 / dataset.fps());
        // A comparison that a NaN fails, too.
        let is_near = (found_s - wanted_s).abs() <= half_a_frame_s;
        if !is_near {
            let what =
                format!("episode {index} has {num_frames} frames, {wanted_s:.4} s, but {found_s:.4} s of the video");
            findings.add(&path, &what);
        }
        if let Some((other, last)) = before.insert(span.file, (index, span)) {
            if span.from_s < last.from_s {
                let what = format!(
                    "episode {index} begins at {:.4} s, before episode {other} at {:.4} s",
                    span.from_s, last.from_s
                );
                findings.add(&path, &what);
            } else if span.from_s < last.to_s - half_a_frame_s {
                let what = format!(
                    "episode {index} begins at {:.4} s, but episode {other} ends at {:.4} s",
                    span.from_s, last.to_s
                );
                findings.add(&path, &what);
            }
        }
    }
}
