//! Learning rate over time: a pure function of the number of finished optimizer steps.

use crate::{Result, TrainError};
use hlrp_schema::{SchedulerConfig, SchedulerType};
use std::f64::consts::PI;

/// Smallest share of the base rate at which a warm-up starts.
const LEAST_START_SHARE: f64 = 1e-8;

/// Linear warm-up over W steps, then half a cosine down to `min_lr` at step T, then `min_lr`; or a constant.
///
/// With k finished steps, base rate b and f = max(1e-8, warmup_start_lr / b):
///
/// - k < W: `b * (f + (1-f) * k/W)`
/// - W <= k < T: `min_lr + (b - min_lr) * (1 + cos(pi * (k-W)/(T-W))) / 2` (Loshchilov and Hutter, 2017, one period)
/// - k >= T: `min_lr`
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    kind: SchedulerType,
    base_lr: f64,
    start_share: f64,
    min_lr: f64,
    warmup_steps: u64,
    max_steps: u64,
}

impl Schedule {
    /// The schedule of a run of `max_steps` optimizer steps.
    ///
    /// # Errors
    /// A warm-up longer than the run, or rates that are negative or out of order.
    pub fn new(config: &SchedulerConfig, base_lr: f64, max_steps: u64) -> Result<Self> {
        let wrong = |key, reason: String| Err(TrainError::Setting { key, reason });
        if !(base_lr.is_finite() && base_lr > 0.0) {
            return wrong("training.optimizer.lr", format!("{base_lr} is not a positive number"));
        }
        if config.kind == SchedulerType::Cosine {
            if config.warmup_steps > max_steps {
                let reason = format!(
                    "the warm-up of {} steps is longer than the run (training.max_steps = {max_steps})\n  \
                     hint: shorten the warm-up or lengthen the run",
                    config.warmup_steps
                );
                return wrong("training.scheduler.warmup_steps", reason);
            }
            for (key, rate) in [
                ("training.scheduler.warmup_start_lr", config.warmup_start_lr),
                ("training.scheduler.min_lr", config.min_lr),
            ] {
                if !(0.0..=base_lr).contains(&rate) {
                    return wrong(key, format!("{rate} does not lie between 0 and training.optimizer.lr = {base_lr}"));
                }
            }
        }
        Ok(Self {
            kind: config.kind,
            base_lr,
            start_share: (config.warmup_start_lr / base_lr).max(LEAST_START_SHARE),
            min_lr: config.min_lr,
            warmup_steps: config.warmup_steps,
            max_steps,
        })
    }

    /// Learning rate of the step that follows `num_done` finished steps.
    pub fn lr(&self, num_done: u64) -> f64 {
        if self.kind == SchedulerType::None {
            return self.base_lr;
        }
        if num_done < self.warmup_steps {
            let share = num_done as f64 / self.warmup_steps as f64;
            return self.base_lr * (self.start_share + (1.0 - self.start_share) * share);
        }
        if num_done >= self.max_steps {
            return self.min_lr;
        }
        let share = (num_done - self.warmup_steps) as f64 / (self.max_steps - self.warmup_steps) as f64;
        self.min_lr + (self.base_lr - self.min_lr) * (1.0 + (PI * share).cos()) / 2.0
    }
}
