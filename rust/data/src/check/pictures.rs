//! Every camera: files that are there and whole, and a picture for every frame.

use super::{Depth, Findings};
use crate::{DataError, lerobot::Dataset};
use std::sync::Arc;

pub(super) fn check(dataset: &Arc<Dataset>, depth: Depth, findings: &mut Findings) {
    for camera in dataset.camera_keys() {
        let checked = if dataset.features()[camera].dtype == "video" {
            check_video(dataset, camera, depth, findings)
        } else {
            decode_all(dataset, camera, depth, findings)
        };
        if let Err(error) = checked {
            findings.error(&error);
        }
    }
}

/// Reads every frame as a trainer would. An episode's first failure is told, then the next episode follows.
fn decode_all(dataset: &Arc<Dataset>, camera: &str, depth: Depth, findings: &mut Findings) -> Result<(), DataError> {
    if depth == Depth::Headers {
        return Ok(());
    }
    let store = dataset.frame_store(camera, None)?;
    let mut reader = store.reader(2)?;
    let frame_len = store.size().frame_bytes();
    let mut out_TCHW = Vec::new();
    for episode in dataset.episodes() {
        for from in (episode.from_row..episode.to_row).step_by(MAX_FRAMES_AT_ONCE) {
            let rows: Vec<u64> = (from..episode.to_row.min(from + MAX_FRAMES_AT_ONCE as u64)).collect();
            out_TCHW.resize(rows.len() * frame_len, 0);
            if let Err(error) = reader.read(&rows, &mut out_TCHW) {
                findings.error(&error);
                break;
            }
        }
    }
    Ok(())
}

/// Bounds the memory that checking takes.
const MAX_FRAMES_AT_ONCE: usize = 64;

#[cfg(feature = "ffmpeg")]
fn check_video(dataset: &Arc<Dataset>, camera: &str, depth: Depth, findings: &mut Findings) -> Result<(), DataError> {
    use std::collections::BTreeMap;

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
        if last_wanted_s > last_frame_s + crate::TOLERANCE_S {
            let what = format!(
                "episode {} ends at {last_wanted_s:.4} s, past the last picture at {last_frame_s:.4} s",
                episode.index
            );
            findings.add(&path, &what);
        }
    }
    // What is damaged as a whole is told once, not once per episode.
    if last_frames.values().all(Option::is_some) { decode_all(dataset, camera, depth, findings) } else { Ok(()) }
}

#[cfg(not(feature = "ffmpeg"))]
fn check_video(dataset: &Arc<Dataset>, camera: &str, _depth: Depth, findings: &mut Findings) -> Result<(), DataError> {
    let spans = dataset.video_spans(camera)?;
    for span in spans {
        let path = dataset.root().join(dataset.info().video_file(camera, span.file.0, span.file.1));
        if !path.exists() {
            findings.add(&path, "there is no such file");
        }
    }
    Ok(())
}
