//! What can be checked of a dataset of any format: sizes, finite values, statistics that are those of the data, images.

use super::findings::{Depth, Findings};
use super::statistics::{compare, note_constants, note_unverified};
use crate::error::DataError;
use crate::formats::{Dataset, FeatureKind};
use crate::request::EpisodeSpan;
use crate::sampler::Permutation;
use crate::statistics::Statistics;
use std::{collections::BTreeMap, sync::Arc};
use xxhash_rust::xxh3::xxh3_128;

/// Bounds the memory that checking takes.
const MAX_FRAMES_AT_ONCE: usize = 64;

/// Checks what every format has: sizes, every vector and its statistics, and, at [`Depth::Images`], every image.
pub fn check_all<D: Dataset + ?Sized>(dataset: &Arc<D>, depth: Depth, findings: &mut Findings) {
    check_features(&**dataset, findings);
    match depth {
        Depth::Images => check_images(dataset, findings),
        Depth::Headers => findings.not_verified("images (--quick)"),
    }
}

/// Reads every vector of every episode.
fn check_features<D: Dataset + ?Sized>(dataset: &D, findings: &mut Findings) {
    let description = dataset.describe();
    let episodes = dataset.episodes();
    let num_frames: u64 = episodes.iter().map(EpisodeSpan::num_frames).sum();
    for (what, said, found) in
        [("episodes", description.num_episodes, episodes.len() as u64), ("frames", description.num_frames, num_frames)]
    {
        if said != found {
            findings.line(format!("the dataset says that it has {said} {what}, but there are {found}"));
        }
    }
    let mut statistics = BTreeMap::new();
    for key in description.keys(FeatureKind::Vector) {
        match sum_up(dataset, key, &episodes, findings) {
            Ok(summed) => drop(statistics.insert(key, summed)),
            Err(error) => findings.error(&error),
        }
    }
    note_constants(&statistics, episodes.len(), findings);
    note_unverified(&description.statistics, &statistics, findings);
    let what = format!("every value of {} features", statistics.len());
    if description.statistics.is_empty() {
        return findings.verified(what);
    }
    for finding in compare(&description.statistics, &statistics) {
        findings.line(finding);
    }
    findings.verified(format!("{what} and their statistics"));
}

/// Statistics of one vector over all episodes.
fn sum_up<D: Dataset + ?Sized>(
    dataset: &D,
    key: &str,
    episodes: &[EpisodeSpan],
    findings: &mut Findings,
) -> Result<Statistics, DataError> {
    let width = dataset.describe().features[key].num_values();
    let mut statistics = Statistics::new(width);
    for span in episodes {
        let rows: Vec<u64> = (span.from_row..span.to_row).collect();
        let mut values = vec![0.0_f32; rows.len() * width];
        dataset.read_vectors(key, &rows, &mut values)?;
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            findings.line(format!("`{key}` is {} at row {} (episode {})", values[at], rows[at / width], span.episode));
        }
        statistics.add(&values.into_iter().map(f64::from).collect::<Vec<_>>());
    }
    Ok(statistics)
}

/// Decodes every frame of every camera.
fn check_images<D: Dataset + ?Sized>(dataset: &Arc<D>, findings: &mut Findings) {
    for camera in dataset.describe().keys(FeatureKind::Camera) {
        if let Err(error) = decode_all(dataset, camera, findings) {
            findings.error(&error);
        }
    }
}

/// About how many frames of a camera are also read at random.
const NUM_AT_RANDOM: u64 = 64;

/// Reads every frame of a camera in order, and some again at random, as a trainer does. An episode's first failure is reported, then
/// the next episode follows.
pub(crate) fn decode_all<D: Dataset + ?Sized>(
    dataset: &Arc<D>,
    camera: &str,
    findings: &mut Findings,
) -> Result<(), DataError> {
    let store = Arc::clone(dataset).frame_store(camera, None)?;
    let mut reader = store.reader(2)?;
    let frame_len = store.size().frame_bytes();
    let mut out_TCHW = Vec::new();
    let spans = dataset.episodes();
    let (first_row, last_row) =
        (spans.first().map_or(0, |span| span.from_row), spans.last().map_or(0, |span| span.to_row));
    let stride = ((last_row - first_row) / NUM_AT_RANDOM).max(1);
    let mut in_order: Vec<(u64, u128)> = Vec::new();
    let mut num_decoded = 0;
    for span in &spans {
        for from in (span.from_row..span.to_row).step_by(MAX_FRAMES_AT_ONCE) {
            let rows: Vec<u64> = (from..span.to_row.min(from + MAX_FRAMES_AT_ONCE as u64)).collect();
            out_TCHW.resize(rows.len() * frame_len, 0);
            if let Err(error) = reader.read(&rows, &mut out_TCHW) {
                findings.error(&error);
                break;
            }
            num_decoded += rows.len();
            let chosen = rows.iter().zip(out_TCHW.chunks_exact(frame_len)).filter(|(row, _)| *row % stride == 0);
            in_order.extend(chosen.map(|(row, frame_CHW)| (*row, xxh3_128(frame_CHW))));
        }
    }
    // Neither in order nor near one another.
    let order = Permutation::new(in_order.len() as u64, [0, 0]);
    out_TCHW.resize(frame_len, 0);
    for (row, digest) in (0..in_order.len() as u64).map(|nth| in_order[order.get(nth) as usize]) {
        match reader.read(&[row], &mut out_TCHW[..frame_len]) {
            Ok(()) if xxh3_128(&out_TCHW[..frame_len]) == digest => {}
            Ok(()) => findings
                .line(format!("row {row} of `{camera}`: the image read alone differs from the one read in order")),
            Err(error) => findings.error(&error),
        }
    }
    findings.verified(format!("{num_decoded} images of {camera} in order, {} again at random", in_order.len()));
    Ok(())
}
