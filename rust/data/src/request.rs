//! What a sample consists of, as frame offsets of one dataset, and how offsets are clamped at an episode's ends.
//!
//! Offsets, clamping and padding follow LeRobot 0.6.1 (`feature_utils.check_delta_timestamps`, `feature_utils.get_delta_indices`,
//! `DatasetReader._get_query_indices`), so that a sample equals `LeRobotDataset[i]` with the same `delta_timestamps`.

use crate::formats::{Description, FeatureKind};
use hlrp_config::Problem;
use hlrp_schema::{DeltaUnit, RequestConfig};
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
    /// Converts the offsets of a checked section, and those of its labels, to frames of a dataset that runs at `fps`. Every anchor has the
    /// images at the offsets `anchor_images`; `source` names the dataset in errors.
    ///
    /// # Errors
    /// An offset in seconds is not a whole number of frames, within `tolerance_s`.
    pub fn resolve(
        config: &RequestConfig,
        anchor_images: &[f64],
        label_deltas: &[f64],
        fps: f64,
        tolerance_s: f64,
        source: &str,
    ) -> Result<Self, Problem> {
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
        Ok(Self {
            image_deltas: frames_of("image_deltas", &config.image_deltas)?,
            anchor_deltas: frames_of("image_deltas", anchor_images)?,
            state_deltas: frames_of("state_deltas", &config.state_deltas)?,
            action_deltas: frames_of("action_deltas", &config.action_deltas)?,
            label_deltas: frames_of("image_deltas", label_deltas)?,
        })
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
#[allow(clippy::cast_possible_truncation)] // a checked section bounds offsets
fn to_frames(delta: f64, unit: DeltaUnit, fps: f64, tolerance_s: f64) -> Result<i64, f64> {
    let frames = match unit {
        DeltaUnit::Frames => delta,
        DeltaUnit::Seconds => delta * fps,
    };
    // Python's round() is half to even.
    let whole = frames.round_ties_even();
    if unit == DeltaUnit::Seconds && (frames - whole).abs() / fps > tolerance_s {
        Err(whole / fps)
    } else {
        Ok(whole as i64)
    }
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
