//! Which anchors show something: scores of motion and action, computed once, and what follows from them.

mod action;
mod motion;
mod scores;
mod verdict;

pub use verdict::{Verdict, VerdictCounts};

use crate::error::DataError;
use crate::formats::{Dataset, FeatureKind};
use crate::request::EpisodeSpan;
use hlrp_config::Problem;
use hlrp_schema::{FilterBy, FilterConfig, MotionCameras};
use hlrp_track::fs::DiskRules;
use std::path::Path;
use std::sync::Arc;

/// Which anchors are scored by what.
pub struct Filter<'a> {
    /// Name of the source, for errors and logs.
    pub name: &'a str,
    /// Its dataset.
    pub dataset: &'a Arc<dyn Dataset>,
    /// Feature keys of the cameras, in the order of their roles.
    pub cameras: Vec<&'a str>,
    /// Feature key of the action.
    pub action_key: Option<&'a str>,
    /// Episodes, in the dataset's order.
    pub spans: &'a [EpisodeSpan],
    /// By what anchors are kept.
    pub by: FilterBy,
    /// The checked section.
    pub config: &'a FilterConfig,
    /// Frames between the two images that are compared, at least 1, where the configuration has no gap.
    pub image_gap: u64,
}

/// What the verdicts of a source follow from.
pub struct FilterScores<'a> {
    filter: &'a Filter<'a>,
    gap: u64,
    /// One score for each anchor of each episode.
    motion: Option<Vec<f32>>,
    /// Score and fraction of steps with an action for each anchor of each episode.
    action: Option<Vec<f32>>,
}

/// Anchors of an episode: frames that have another one `gap` later; at least one, if it has frames.
fn num_anchors(span: &EpisodeSpan, gap: u64) -> u64 {
    if span.num_frames() == 0 { 0 } else { span.num_frames().saturating_sub(gap).max(1) }
}

impl<'a> Filter<'a> {
    /// Reads the scores from below `cache_dir`, where a part of them has been computed before; computes the others on all cores and writes them
    /// there, leaving free what `disk` says.
    ///
    /// # Errors
    /// [`Problem`] with an action dimension that does not exist; a frame size that is not known; a file that cannot be read or written.
    pub fn scores(&'a self, cache_dir: &Path, disk: &DiskRules) -> Result<FilterScores<'a>, DataError> {
        let gap = self.config.gap.unwrap_or(self.image_gap).max(1);
        let folder = cache_dir.join("filters");
        let motion = self.by.uses_motion().then(|| {
            let num_cameras = match self.config.motion.cameras {
                MotionCameras::First => 1,
                MotionCameras::Mean | MotionCameras::Max => self.cameras.len(),
            };
            motion::scores(self, &self.cameras[..num_cameras], gap, &folder, disk)
        });
        let action = match self.action_key.filter(|_| self.by.uses_action()) {
            Some(key) => {
                self.check_dims(key)?;
                Some(action::scores(self, key, gap, &folder, disk)?)
            }
            None => None,
        };
        Ok(FilterScores { filter: self, gap, motion: motion.transpose()?, action })
    }

    fn check_dims(&self, key: &str) -> Result<(), Problem> {
        let num_dims = self.dataset.describe().feature(key, FeatureKind::Vector).map_or(0, |found| found.num_values());
        let config = &self.config.action;
        for (list, dims) in [("delta_dims", &config.delta_dims), ("exclude_dims", &config.exclude_dims)] {
            if let Some(dim) = dims.iter().find(|dim| **dim >= num_dims as u64) {
                let message = format!("`{key}` of source `{}` has {num_dims} dimensions, none is {dim}", self.name);
                return Err(Problem::new(format!("data.filter.action.{list}"), message, "count them from 0"));
            }
        }
        Ok(())
    }
}

impl FilterScores<'_> {
    /// What becomes of the anchors of every episode.
    pub fn verdicts(&self) -> impl Iterator<Item = Verdict> {
        let mut before = 0;
        self.filter.spans.iter().map(move |span| {
            let anchors = before..before + num_anchors(span, self.gap) as usize;
            before = anchors.end;
            let motion = self.motion.as_ref().map(|scores| &scores[anchors.clone()]);
            let action = self.action.as_ref().map(|scores| &scores[2 * anchors.start..2 * anchors.end]);
            Verdict::of(*span, motion, action, self.filter.config)
        })
    }
}
