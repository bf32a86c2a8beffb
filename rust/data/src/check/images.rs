//! Every image of a dataset of any format.

use super::Findings;
use crate::error::DataError;
use crate::formats::{Dataset, FeatureKind};
use std::sync::Arc;

/// Bounds the memory that checking takes.
const MAX_FRAMES_AT_ONCE: usize = 64;

/// Decodes every frame of every camera.
pub(crate) fn check_images<D: Dataset + ?Sized>(dataset: &Arc<D>, findings: &mut Findings) {
    for camera in dataset.describe().keys(FeatureKind::Camera) {
        if let Err(error) = decode_all(dataset, camera, findings) {
            findings.error(&error);
        }
    }
}

/// Reads every frame as a trainer would. An episode's first failure is reported, then the next episode follows.
pub(crate) fn decode_all<D: Dataset + ?Sized>(
    dataset: &Arc<D>,
    camera: &str,
    findings: &mut Findings,
) -> Result<(), DataError> {
    let store = Arc::clone(dataset).frame_store(camera, None)?;
    let mut reader = store.reader(2)?;
    let frame_len = store.size().frame_bytes();
    let mut out_TCHW = Vec::new();
    for span in dataset.episodes() {
        for from in (span.from_row..span.to_row).step_by(MAX_FRAMES_AT_ONCE) {
            let rows: Vec<u64> = (from..span.to_row.min(from + MAX_FRAMES_AT_ONCE as u64)).collect();
            out_TCHW.resize(rows.len() * frame_len, 0);
            if let Err(error) = reader.read(&rows, &mut out_TCHW) {
                findings.error(&error);
                break;
            }
        }
    }
    Ok(())
}
