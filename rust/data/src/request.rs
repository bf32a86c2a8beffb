//! What a sample consists of, as frame offsets of one dataset, and how offsets are clamped at an episode's ends.
//!
//! Offsets, clamping and padding follow LeRobot 0.6.1 (`feature_utils.check_delta_timestamps`, `feature_utils.get_delta_indices`,
//! `DatasetReader._get_query_indices`), so that a sample equals `LeRobotDataset[i]` with the same `delta_timestamps`.

use crate::formats::{Description, FeatureKind};
use hlrp_config::Problem;
use hlrp_schema::{DeltaUnit, RequestConfig, SpanConfig};
use std::{iter, ops::Range};

/// How far an offset in seconds may be from a whole number of frames, and a row's time from that of its frame, unless a source says
/// otherwise (LeRobot's default of `tolerance_s`), in seconds.
pub const TOLERANCE_S: f64 = 1e-4;

/// Largest rounding error of a time in seconds that was stored as float32.
pub(crate) fn float32_error(time_s: f64) -> f64 {
    time_s.abs() * f64::from(f32::EPSILON) / 2.0
}

/// Offsets of one dataset, in its frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Images of every camera role.
    pub image_deltas: Vec<i64>,
    /// Images that every anchor must have; the others are padded at an episode's ends.
    pub anchor_deltas: Vec<i64>,
    /// States.
    pub state_deltas: Vec<i64>,
    /// Actions.
    pub action_deltas: Vec<i64>,
    /// Labels.
    pub label_deltas: Vec<i64>,
}

/// How offsets become frames of one dataset.
#[derive(Debug, Clone, Copy)]
pub struct Timing<'a> {
    /// Frames per second.
    pub fps: f64,
    /// How far an offset in seconds may be from a whole number of frames, seconds.
    pub tolerance_s: f64,
    /// The dataset in errors.
    pub source: &'a str,
    /// Frames of an offset of 1 of images and labels, where the source has a span of its own: they are rounded to whole frames.
    pub frames_per_unit: Option<f64>,
}

/// Frames of an offset of 1, where the images of a sample, at `image_deltas`, span what a source says; none where all are at one time.
pub(crate) fn frames_per_unit(span: SpanConfig, image_deltas: &[f64], fps: f64) -> Option<f64> {
    let frames = match span.unit {
        DeltaUnit::Frames => span.length,
        DeltaUnit::Seconds => (span.length * fps).round_ties_even().max(1.0),
    };
    let ends = image_deltas.iter().fold([0.0_f64; 2], |[low, high], delta| [low.min(*delta), high.max(*delta)]);
    let reach = ends[1] - ends[0];
    (reach > 0.0).then(|| frames / reach)
}

/// Columns that samples have besides state and action: the labels that `hlrp label` wrote into a dataset.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LabelRequest {
    /// Their feature keys.
    pub keys: Vec<String>,
    /// Their offsets, in the unit of the request.
    pub deltas: Vec<f64>,
}

impl LabelRequest {
    /// Refuses a dataset without one of the labels; `root` names it in the error.
    ///
    /// # Errors
    /// [`Problem`] with `root`.
    pub fn check(&self, dataset: &Description, root: &str) -> Result<(), Problem> {
        let is_missing = |key: &&String| dataset.feature(key, FeatureKind::Vector).is_none();
        self.keys.iter().find(is_missing).map_or(Ok(()), |missing| {
            let hint = "write labels with `hlrp label`, and give the dataset that it wrote";
            Err(Problem::new(root, format!("the dataset has no labels `{missing}`"), hint))
        })
    }
}

impl Request {
    /// Converts the offsets of a checked section, and those of its labels, to frames of a dataset. Every anchor has the images at the offsets
    /// `anchor_images`.
    ///
    /// # Errors
    /// An offset in seconds is not a whole number of frames, within the tolerance.
    pub fn resolve(
        config: &RequestConfig,
        anchor_images: &[f64],
        label_deltas: &[f64],
        timing: &Timing<'_>,
    ) -> Result<Self, Problem> {
        let Timing { fps, tolerance_s, source, frames_per_unit } = *timing;
        let frames_of = |name: &str, deltas: &[f64]| -> Result<Vec<i64>, Problem> {
            let frames = |&delta: &f64| {
                to_frames(delta, config.unit, fps, tolerance_s).map_err(|nearest_s| {
                    let message = format!(
                        "{delta} s is not a whole number of frames of source `{source}`, which runs at {fps} frames per \
                         second"
                    );
                    let hint = format!("the nearest possible offset is {nearest_s} s");
                    Problem::new(format!("data.request.{name}"), message, hint)
                })
            };
            deltas.iter().map(frames).collect()
        };
        let images_of = |deltas: &[f64]| match frames_per_unit {
            Some(scale) => Ok(deltas.iter().map(|delta| whole(delta * scale)).collect()),
            None => frames_of("image_deltas", deltas),
        };
        Ok(Self {
            image_deltas: images_of(&config.image_deltas)?,
            anchor_deltas: images_of(anchor_images)?,
            state_deltas: frames_of("state_deltas", &config.state_deltas)?,
            action_deltas: frames_of("action_deltas", &config.action_deltas)?,
            label_deltas: images_of(label_deltas)?,
        })
    }

    /// The same images with the states at each of them, and the actions that lead from the first to the second: of every step from the first to
    /// the last before the second, `max_steps` at most.
    #[must_use]
    pub(crate) fn of_whole_pairs(self, max_steps: u64) -> Self {
        let (first, second) = (self.image_deltas[0], self.image_deltas.get(1).copied().unwrap_or(self.image_deltas[0]));
        let action_deltas = (first..second).take(usize::try_from(max_steps).unwrap_or(usize::MAX)).collect();
        Self { state_deltas: self.image_deltas.clone(), action_deltas, ..self }
    }

    /// Frames that the images of every anchor reach before (≤ 0) and after (≥ 0) it.
    #[must_use]
    pub fn anchor_reach(&self) -> (i64, i64) {
        let (first, last) = (self.anchor_deltas.iter().min(), self.anchor_deltas.iter().max());
        (first.map_or(0, |&d| d.min(0)), last.map_or(0, |&d| d.max(0)))
    }
}

/// An offset in frames.
///
/// # Errors
/// The nearest possible offset in seconds, if this one is not a whole number of frames.
fn to_frames(delta: f64, unit: DeltaUnit, fps: f64, tolerance_s: f64) -> Result<i64, f64> {
    let frames = match unit {
        DeltaUnit::Frames => delta,
        DeltaUnit::Seconds => delta * fps,
    };
    let nearest = whole(frames);
    if unit == DeltaUnit::Seconds && (frames - nearest as f64).abs() / fps > tolerance_s {
        Err(nearest as f64 / fps)
    } else {
        Ok(nearest)
    }
}

/// The nearest whole number, half to even as in Python.
#[allow(clippy::cast_possible_truncation)] // a checked section bounds offsets
fn whole(frames: f64) -> i64 {
    frames.round_ties_even() as i64
}

/// A warning about offsets in frames where the datasets' rates differ: what they are in seconds. Images whose spacing every source gives itself
/// are as they are meant.
pub(crate) fn differing_seconds(request: &RequestConfig, timings: &[Timing<'_>]) -> Option<String> {
    let has_spans = timings.iter().all(|timing| timing.frames_per_unit.is_some());
    let images = if has_spans { &[][..] } else { &request.image_deltas };
    let deltas = [images, &request.state_deltas, &request.action_deltas].into_iter().flatten();
    let farthest = deltas.copied().max_by(|a, b| a.abs().total_cmp(&b.abs())).filter(|delta| *delta != 0.0)?;
    if request.unit == DeltaUnit::Seconds || timings.windows(2).all(|pair| pair[0].fps == pair[1].fps) {
        return None;
    }
    let seconds = timings
        .iter()
        .map(|Timing { fps, source, .. }| format!("{:.3} s in {source} ({fps} per second)", farthest / fps));
    let seconds = seconds.collect::<Vec<_>>().join(", ");
    Some(format!(
        "data.request.unit=frames, but the sources have different frame rates: {farthest} frames are {seconds}"
    ))
}

/// Rows `[from_row, to_row)` of a dataset that form one episode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EpisodeSpan {
    /// Episode index in the dataset.
    pub episode: u64,
    /// First row.
    pub from_row: u64,
    /// Row after the last.
    pub to_row: u64,
}

impl EpisodeSpan {
    /// Number of frames.
    #[must_use]
    pub fn num_frames(&self) -> u64 {
        self.to_row - self.from_row
    }

    /// All of its rows, as one stretch.
    pub(crate) fn rows(&self) -> Vec<Range<u64>> {
        iter::once(self.from_row..self.to_row).collect()
    }

    /// The row at `row + delta`, clamped to the episode, and whether it was outside (LeRobot's `is_pad`).
    #[must_use]
    pub fn clamp(&self, row: u64, delta: i64) -> (u64, bool) {
        match row.checked_add_signed(delta) {
            Some(wanted) if (self.from_row..self.to_row).contains(&wanted) => (wanted, false),
            Some(wanted) if wanted >= self.to_row => (self.to_row - 1, true),
            _ => (self.from_row, true),
        }
    }

    /// Clamped rows of all `deltas` around `row`, and where they are padding.
    #[must_use]
    pub fn window(&self, row: u64, deltas: &[i64]) -> (Vec<u64>, Vec<bool>) {
        deltas.iter().map(|&delta| self.clamp(row, delta)).unzip()
    }
}

#[cfg(test)]
mod tests {
    use super::{TOLERANCE_S, Timing, differing_seconds};
    use hlrp_schema::{DeltaUnit, RequestConfig};

    #[test]
    fn frames_of_sources_with_different_rates_are_said_in_seconds() {
        let request = |unit, image_deltas: [f64; 2]| RequestConfig {
            unit,
            image_deltas: image_deltas.to_vec(),
            state_deltas: vec![0.0],
            action_deltas: vec![],
        };
        let timing = |source, fps, frames_per_unit| Timing { fps, tolerance_s: TOLERANCE_S, source, frames_per_unit };
        let rates = [timing("slow", 10.0, None), timing("fast", 40.0, Some(2.0))];
        let warning = differing_seconds(&request(DeltaUnit::Frames, [0.0, 5.0]), &rates).unwrap_or_default();
        assert!(
            warning.ends_with("5 frames are 0.500 s in slow (10 per second), 0.125 s in fast (40 per second)"),
            "{warning}"
        );
        assert_eq!(differing_seconds(&request(DeltaUnit::Seconds, [0.0, 0.5]), &rates), None);
        assert_eq!(differing_seconds(&request(DeltaUnit::Frames, [0.0, 0.0]), &rates), None, "only the present");
        let alike = [timing("a", 10.0, None), timing("b", 10.0, None)];
        assert_eq!(differing_seconds(&request(DeltaUnit::Frames, [0.0, 5.0]), &alike), None);
        let spans = [timing("slow", 10.0, Some(1.0)), timing("fast", 40.0, Some(4.0))];
        assert_eq!(differing_seconds(&request(DeltaUnit::Frames, [0.0, 5.0]), &spans), None, "as the sources say");
    }
}
