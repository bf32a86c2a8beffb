//! Section `scenes` of a source: what folders of scenes do not say themselves.

use crate::conditions::Conditions;
use crate::rules::{Checked, at_least, positive, require, section};
use hlrp_config::Check;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// What folders of scenes do not say themselves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenesConfig {
    /// Frames per second.
    pub fps: f64,
    /// Conditions on a scene by what they are about; all must hold.
    pub filters: BTreeMap<String, Value>,
    /// Scenes with fewer frames are left out.
    pub min_frames: u64,
    /// Which scenes are held out; those of `num_val_episodes` or `val_episodes` when null.
    pub split: Option<SceneSplitConfig>,
}

/// Which scenes are held out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SceneSplitConfig {
    /// What decides.
    pub mode: SceneSplitMode,
    /// Seed of the order in which scenes are taken.
    pub seed: u64,
    /// Of the mode `ratio`: fraction of the scenes in use.
    pub val_ratio: Option<f64>,
    /// Of the mode `metadata`: conditions on a scene that is held out.
    pub val_filters: Option<BTreeMap<String, Value>>,
    /// Of the mode `fixed_count`: scenes are held out until they have so many pairs.
    pub num_val_pairs: Option<u64>,
}

/// What decides which scenes are held out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SceneSplitMode {
    /// A fraction of the scenes, at least one; the only scene is for training.
    Ratio,
    /// Conditions on what is known of a scene.
    Metadata,
    /// A number of pairs.
    FixedCount,
}

impl Check for ScenesConfig {
    fn check(&self) -> Checked {
        positive("fps", self.fps)?;
        section("filters", Conditions::of(&self.filters).map(drop))?;
        at_least("min_frames", self.min_frames, 1)?;
        self.split.as_ref().map_or(Ok(()), |split| section("split", split.check()))
    }
}

impl Check for SceneSplitConfig {
    fn check(&self) -> Checked {
        let (key, is_set) = match self.mode {
            SceneSplitMode::Ratio => ("val_ratio", self.val_ratio.is_some()),
            SceneSplitMode::Metadata => ("val_filters", self.val_filters.is_some()),
            SceneSplitMode::FixedCount => ("num_val_pairs", self.num_val_pairs.is_some()),
        };
        require(is_set, key, "the mode of the split needs it", "set it, or choose another split.mode")?;
        let is_ratio = self.val_ratio.is_none_or(|ratio| ratio > 0.0 && ratio < 1.0);
        require(is_ratio, "val_ratio", "the fraction is out of range", "give a number above 0 and below 1")?;
        if let Some(filters) = &self.val_filters {
            section("val_filters", Conditions::of(filters).map(drop))?;
        }
        at_least("num_val_pairs", self.num_val_pairs.unwrap_or(1), 1)
    }
}
