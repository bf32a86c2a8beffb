//! Section `data.filter`: which anchors show something, by how much the image changes and what the robot does.

use crate::rules::{Checked, at_least, require, section, within};
use hlrp_config::Check;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// By what the anchors of a source are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum FilterBy {
    /// The image changes.
    Motion,
    /// The robot acts.
    Action,
    /// Both of it.
    Both,
}

impl FilterBy {
    /// Whether frames are compared.
    #[must_use]
    pub fn uses_motion(self) -> bool {
        self != Self::Action
    }

    /// Whether actions are read.
    #[must_use]
    pub fn uses_action(self) -> bool {
        self != Self::Motion
    }
}

/// How anchors are scored, and from which score on they are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterConfig {
    /// Frames between the two images whose difference is the motion; as many as the images of a sample span when null.
    pub gap: Option<u64>,
    /// The change of the image.
    pub motion: MotionFilterConfig,
    /// What the robot does.
    pub action: ActionFilterConfig,
    /// Everything before the first and after the last of so many strong anchors in a row is dropped; nothing when 0.
    pub trim_run: u64,
}

/// Which cameras count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MotionCameras {
    /// The first role.
    First,
    /// The mean over all roles.
    Mean,
    /// The largest score of all roles.
    Max,
}

/// The fraction of an image's pixels that change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MotionFilterConfig {
    /// Which cameras count.
    pub cameras: MotionCameras,
    /// Height or width, the shorter one, of the images that are compared; smaller ones are compared as they are.
    pub short_side: usize,
    /// Pixels across the box that images are blurred with; an even number counts as the next.
    pub blur: usize,
    /// Change of luma, 0 to 1, from which on a pixel has changed.
    pub pixel_threshold: f64,
    /// Neighbouring anchors whose scores are averaged; an even number counts as the next.
    pub smooth: usize,
    /// Score from which on anchors are kept that are connected to one above `high`.
    pub low: f64,
    /// Score from which on anchors are strong.
    pub high: f64,
}

/// How the scores of the steps become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OverSteps {
    /// The largest.
    Max,
    /// The mean.
    Mean,
}

/// The size of the actions after an anchor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionFilterConfig {
    /// Steps from the anchor on.
    pub num_steps: u64,
    /// Dimensions that are absolute: their change from step to step counts.
    pub delta_dims: Vec<u64>,
    /// Dimensions that do not count.
    pub exclude_dims: Vec<u64>,
    /// How the norms of the steps become one score.
    pub over_steps: OverSteps,
    /// Score from which on anchors are kept.
    pub threshold: f64,
    /// Fraction of the steps with any action from which on anchors are kept.
    pub min_nonzero_ratio: f64,
}

/// Largest side, box and number of frames.
const MOST: i128 = 1 << 16;

impl Check for FilterConfig {
    fn check(&self) -> Checked {
        if let Some(gap) = self.gap {
            within("gap", gap, 1, MOST)?;
        }
        at_least("trim_run", self.trim_run, 0)?;
        section("motion", self.motion.check())?;
        section("action", self.action.check())
    }
}

/// A fraction from 0 to 1.
fn fraction(key: &str, value: f64) -> Checked {
    require((0.0..=1.0).contains(&value), key, format!("{value} is out of range"), "give a number from 0 to 1")
}

impl Check for MotionFilterConfig {
    fn check(&self) -> Checked {
        within("short_side", self.short_side, 8, MOST)?;
        within("blur", self.blur, 1, MOST)?;
        within("smooth", self.smooth, 1, MOST)?;
        fraction("pixel_threshold", self.pixel_threshold)?;
        fraction("high", self.high)?;
        fraction("low", self.low)?;
        let message = format!("low {} is above high {}", self.low, self.high);
        require(self.low <= self.high, "low", message, "lower it, or set it to the same value: no hysteresis")
    }
}

impl Check for ActionFilterConfig {
    fn check(&self) -> Checked {
        within("num_steps", self.num_steps, 1, MOST)?;
        for (key, dims) in [("delta_dims", &self.delta_dims), ("exclude_dims", &self.exclude_dims)] {
            let mut seen = BTreeSet::new();
            for dim in dims {
                within(key, *dim, 0, MOST)?;
                require(seen.insert(dim), key, format!("dimension {dim} is listed twice"), "list it once")?;
            }
        }
        let is_threshold = self.threshold.is_finite() && self.threshold >= 0.0;
        let hint = "give a number from 0 on";
        require(is_threshold, "threshold", format!("{} is out of range", self.threshold), hint)?;
        fraction("min_nonzero_ratio", self.min_nonzero_ratio)
    }
}
