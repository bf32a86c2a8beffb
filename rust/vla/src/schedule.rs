//! LeRobot's learning-rate schedule for SmolVLA.

use std::f64::consts::PI;

/// Cosine decay with warm-up, as LeRobot's preset of that name computes it.
///
/// The cosine counts from step 0, not from the end of the warm-up, so the peak itself is reached only without a warm-up.
/// A run shorter than the decay shrinks warm-up and decay in proportion.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LerobotCosine {
    num_warmup_steps: u64,
    num_decay_steps: u64,
    end_share: f64,
}

impl LerobotCosine {
    /// The schedule of a run of `num_training_steps`; rates in units of each other.
    pub fn new(
        num_warmup_steps: u64,
        num_decay_steps: u64,
        peak_lr: f64,
        decay_lr: f64,
        num_training_steps: u64,
    ) -> Self {
        let end_share = decay_lr / peak_lr;
        if num_training_steps >= num_decay_steps {
            return Self { num_warmup_steps, num_decay_steps, end_share };
        }
        let shrink = num_training_steps as f64 / num_decay_steps as f64;
        Self {
            num_warmup_steps: (num_warmup_steps as f64 * shrink) as u64,
            num_decay_steps: num_training_steps,
            end_share,
        }
    }

    /// Factor on the peak rate for the update that follows `num_done` finished updates.
    pub fn multiplier(&self, num_done: u64) -> f64 {
        if num_done < self.num_warmup_steps {
            let first = 1.0 / (self.num_warmup_steps + 1) as f64;
            let remaining = 1.0 - num_done as f64 / self.num_warmup_steps as f64;
            return (first - 1.0) * remaining + 1.0;
        }
        let share = num_done.min(self.num_decay_steps) as f64 / self.num_decay_steps as f64;
        let cosine = 0.5 * (1.0 + (PI * share).cos());
        (1.0 - self.end_share) * cosine + self.end_share
    }
}
