//! Section `model.label_head`: labelled actions in the loop.

use crate::rules::{Checked, at_least, long_count, not_negative};
use hlrp_config::Check;
use serde::{Deserialize, Serialize};

/// A head that predicts the relative action of labelled pairs from their vectors before quantization. It exists in training alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelHeadConfig {
    /// Factor on its loss; 0 = no head.
    pub weight: f64,
    /// Widths of its hidden layers; none = linear.
    pub hidden_dims: Vec<i64>,
    /// Steps from one batch of labelled pairs to the next.
    pub every_n_steps: u64,
}

impl LabelHeadConfig {
    /// Whether there is a head.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.weight > 0.0
    }
}

impl Check for LabelHeadConfig {
    fn check(&self) -> Checked {
        not_negative("weight", self.weight)?;
        self.hidden_dims.iter().try_for_each(|width| at_least("hidden_dims", *width, 1))?;
        long_count("every_n_steps", self.every_n_steps)
    }
}
