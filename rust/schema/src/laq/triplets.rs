//! Section `model.triplets`: changes that add up.

use crate::rules::{Checked, not_negative};
use hlrp_config::Check;
use serde::{Deserialize, Serialize};

/// Losses of training that compare changes of several pairs of one sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TripletsConfig {
    /// Factor on the error of the change over both halves of frames t, t+k and t+2k against the sum of the halves'.
    pub additivity_weight: f64,
    /// Factor on the error of the change from frame t+k back to frame t against the opposite of that from t to t+k.
    pub reversal_weight: f64,
}

impl TripletsConfig {
    /// Whether any of the losses is in use.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.additivity_weight > 0.0 || self.reversal_weight > 0.0
    }

    /// Frames of a training sample, evenly spaced.
    #[must_use]
    pub fn num_frames(&self) -> i64 {
        if self.additivity_weight > 0.0 { 3 } else { 2 }
    }
}

impl Check for TripletsConfig {
    fn check(&self) -> Checked {
        not_negative("additivity_weight", self.additivity_weight)?;
        not_negative("reversal_weight", self.reversal_weight)
    }
}
