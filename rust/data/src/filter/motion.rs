//! The motion score of an anchor: the fraction of pixels whose blurred luma changes from its frame to the one `gap` later.

use super::{Filter, num_anchors, scores};
use crate::error::DataError;
use crate::formats::FeatureKind;
use crate::frames::{FrameSize, FrameStore};
use crate::parallel::in_parallel;
use crate::request::EpisodeSpan;
use hlrp_schema::{MotionCameras, MotionFilterConfig};
use hlrp_track::fs::DiskRules;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

/// Weights of red, green and blue in luma (ITU-R BT.601).
const LUMA: [f32; 3] = [0.299, 0.587, 0.114];
/// Frames that are decoded at once.
const FRAMES_AT_ONCE: usize = 16;

/// One score for each anchor of each episode.
pub(super) fn scores(
    filter: &Filter<'_>,
    cameras: &[&str],
    gap: u64,
    folder: &Path,
    disk: &DiskRules,
) -> Result<Vec<f32>, DataError> {
    let config = &filter.config.motion;
    let MotionFilterConfig { cameras: combined, short_side, blur, pixel_threshold, .. } = config;
    let settings = serde_json::json!([cameras, combined, gap, short_side, blur, pixel_threshold]);
    let fingerprint = |camera: &&str| filter.dataset.fingerprint_of_frames(camera, filter.spans);
    let fingerprints = cameras.iter().map(fingerprint).collect::<Result<Vec<_>, _>>()?;
    let file = scores::ScoreFile::new(filter, folder, "motion", &settings, &fingerprints);
    file.read_or(disk, || {
        let num_frames: u64 = filter.spans.iter().map(EpisodeSpan::num_frames).sum();
        tracing::info!("filter of {}: the motion of {num_frames} frames of {} cameras", filter.name, cameras.len());
        let open = |camera: &&str| {
            let native = filter.dataset.describe().feature(camera, FeatureKind::Camera).and_then(|f| f.frame_size());
            let size = native.map(|native| reduced(native, *short_side));
            Arc::clone(filter.dataset).frame_store(camera, size)
        };
        let stores = cameras.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let of_episode = |span: &EpisodeSpan| {
            let of_stores = stores.iter().map(|store| of_camera(&**store, span, gap, config));
            of_stores.collect::<Result<Vec<_>, _>>().map(|scores| combine(&scores, *combined))
        };
        let mut is_complete = true;
        let mut scores = Vec::new();
        for (span, of_episode) in filter.spans.iter().zip(in_parallel(filter.spans, of_episode)) {
            scores.extend(of_episode.unwrap_or_else(|error| {
                tracing::warn!("filter of {}: episode {} is kept as it is: {error}", filter.name, span.episode);
                is_complete = false;
                vec![1.0; num_anchors(span, gap) as usize]
            }));
        }
        Ok((scores, is_complete))
    })
}

/// The size with the same aspect ratio whose shorter side is `short_side`, where the native one is larger.
fn reduced(native: FrameSize, short_side: usize) -> FrameSize {
    let shorter = native.height.min(native.width);
    let side = |pixels: usize| (pixels * short_side / shorter).max(1);
    if shorter <= short_side { native } else { FrameSize { height: side(native.height), width: side(native.width) } }
}

/// Scores of cameras together.
fn combine(scores: &[Vec<f32>], how: MotionCameras) -> Vec<f32> {
    let of_anchor = |anchor: usize| {
        let of_cameras = scores.iter().map(|scores| scores[anchor]);
        match how {
            MotionCameras::First | MotionCameras::Max => of_cameras.fold(0.0, f32::max),
            MotionCameras::Mean => of_cameras.sum::<f32>() / scores.len() as f32,
        }
    };
    (0..scores.first().map_or(0, Vec::len)).map(of_anchor).collect()
}

/// Scores of the anchors of an episode. One that is not longer than the gap is compared from its first frame to its last.
fn of_camera(
    store: &dyn FrameStore,
    span: &EpisodeSpan,
    gap: u64,
    config: &MotionFilterConfig,
) -> Result<Vec<f32>, DataError> {
    let gap = gap.min(span.num_frames().saturating_sub(1)) as usize;
    let size = store.size();
    let mut reader = store.reader(1)?;
    let mut earlier: VecDeque<Vec<f32>> = VecDeque::with_capacity(gap + 1);
    let mut scores = Vec::new();
    let rows: Vec<u64> = (span.from_row..span.to_row).collect();
    let mut pixels_TCHW = vec![0; FRAMES_AT_ONCE * size.frame_bytes()];
    for rows in rows.chunks(FRAMES_AT_ONCE) {
        let pixels_TCHW = &mut pixels_TCHW[..rows.len() * size.frame_bytes()];
        reader.read(rows, pixels_TCHW)?;
        for pixels_CHW in pixels_TCHW.chunks_exact(size.frame_bytes()) {
            earlier.push_back(blurred_luma(pixels_CHW, size, config.blur / 2));
            if earlier.len() > gap {
                let (first, last) = (&earlier[0], &earlier[gap]);
                let has_changed = |(a, b): &(&f32, &f32)| f64::from((*a - *b).abs()) >= config.pixel_threshold;
                let num_changed = first.iter().zip(last).filter(has_changed).count();
                scores.push(num_changed as f32 / first.len().max(1) as f32);
                earlier.pop_front();
            }
        }
    }
    Ok(scores)
}

/// Luma `[H,W]`, 0 to 1, averaged over boxes that reach `radius` pixels to each side; pixels at the border are repeated beyond it.
fn blurred_luma(pixels_CHW: &[u8], size: FrameSize, radius: usize) -> Vec<f32> {
    let FrameSize { height, width } = size;
    let plane = height * width;
    let luma = |at: usize| (0..3).map(|c| LUMA[c] * f32::from(pixels_CHW[c * plane + at])).sum::<f32>() / 255.0;
    let luma_HW: Vec<f32> = (0..plane).map(luma).collect();
    if radius == 0 {
        return luma_HW;
    }
    let rows_HW: Vec<f32> = (0..height).flat_map(|row| box_mean(&luma_HW[row * width..][..width], radius)).collect();
    let mut blurred_HW = vec![0.0; plane];
    for column in 0..width {
        let values: Vec<f32> = (0..height).map(|row| rows_HW[row * width + column]).collect();
        for (row, mean) in box_mean(&values, radius).into_iter().enumerate() {
            blurred_HW[row * width + column] = mean;
        }
    }
    blurred_HW
}

/// Means over windows that reach `radius` to each side; values at the ends are repeated beyond them.
pub(super) fn box_mean(values: &[f32], radius: usize) -> Vec<f32> {
    let Some(last) = values.len().checked_sub(1) else { return Vec::new() };
    let at = |index: usize| values[index.saturating_sub(radius).min(last)];
    let width = 2 * radius + 1;
    let mut sum: f64 = (0..width).map(|index| f64::from(at(index))).sum();
    let mean = |index: usize| {
        let mean = sum / width as f64;
        sum += f64::from(at(index + width)) - f64::from(at(index));
        mean as f32
    };
    (0..values.len()).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::{FrameSize, blurred_luma, box_mean, reduced};

    #[test]
    fn windows_repeat_the_values_at_the_ends() {
        assert_eq!(box_mean(&[0.0, 3.0, 6.0, 9.0], 1), [1.0, 3.0, 6.0, 8.0]);
        assert_eq!(box_mean(&[5.0], 2), [5.0]);
        assert_eq!(box_mean(&[], 2), [0.0; 0]);
    }

    #[test]
    fn luma_is_blurred_in_both_directions() {
        let size = FrameSize { height: 3, width: 3 };
        let mut pixels = vec![0; 27];
        [4, 13, 22].iter().for_each(|at| pixels[*at] = 255);
        let blurred = blurred_luma(&pixels, size, 1);
        assert!(blurred.iter().all(|value| (value - 1.0 / 9.0).abs() < 1e-6), "{blurred:?}");
    }

    #[test]
    fn large_images_are_reduced_and_small_ones_are_not() {
        let size = |height, width| FrameSize { height, width };
        assert_eq!(reduced(size(480, 640), 224), size(224, 298));
        assert_eq!(reduced(size(96, 128), 224), size(96, 128));
    }
}
