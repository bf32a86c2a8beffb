//! What a checkpoint says of its task.

use crate::{DeltaUnit, LaqModelConfig};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The task of a checkpoint: enough to build its model and to use it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum TaskDescription {
    /// Stage 1.
    Laq(LaqDescription),
    /// Stage 2.
    Vla(serde_json::Value),
}

impl TaskDescription {
    /// As written in `experiment.stage`.
    pub fn stage(&self) -> &'static str {
        match self {
            Self::Laq(_) => "laq",
            Self::Vla(_) => "vla",
        }
    }
}

/// A latent action model and the frame pairs it was trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaqDescription {
    /// Sizes of the model.
    pub model: LaqModelConfig,
    /// Offsets of the frames of a pair.
    pub pair: PairSpacing,
    /// Role of the camera.
    pub camera: String,
    /// Name of the preprocessing of frames.
    pub preprocess: String,
}

/// Offsets of a frame pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairSpacing {
    /// Unit of the offsets.
    pub unit: DeltaUnit,
    /// Offsets of both frames from the anchor.
    pub image_deltas: Vec<f64>,
}

impl fmt::Display for PairSpacing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            DeltaUnit::Frames => "frames",
            DeltaUnit::Seconds => "seconds",
        };
        write!(f, "{:?} {unit}", self.image_deltas)
    }
}
