//! Sections `training` and `validation`.

use crate::rules::{Checked, at_least, fraction, long_count, not_negative, positive, require, section};
use hlrp_config::{Check, Problem};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Section `training`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingConfig {
    /// Optimizer steps of the whole run.
    pub max_steps: u64,
    /// Steps between log lines.
    pub log_every_n_steps: u64,
    /// AdamW.
    pub optimizer: OptimizerConfig,
    /// Learning rate over time.
    pub scheduler: SchedulerConfig,
    /// Clipping and accumulation.
    pub gradient: GradientConfig,
    /// Several processes.
    pub distributed: DistributedConfig,
    /// Whether steps are recorded once as a CUDA graph and then replayed.
    pub cuda_graph: bool,
    /// Average of the weights.
    pub ema: EmaConfig,
    /// Random changes of images.
    pub augmentation: AugmentationConfig,
    /// What is saved when.
    pub checkpoint: CheckpointConfig,
    /// Checkpoint folder or run directory to continue from.
    pub resume_from_checkpoint: Option<PathBuf>,
    /// Checkpoint folder or weight file to start from.
    pub load_weights_from: Option<PathBuf>,
}

/// AdamW.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Base learning rate.
    pub lr: f64,
    /// Decay of the two moments.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay of parameters with two or more dimensions.
    pub weight_decay: f64,
}

/// Learning rate over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchedulerConfig {
    /// Shape.
    #[serde(rename = "type")]
    pub kind: SchedulerType,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// Rate at step 0.
    pub warmup_start_lr: f64,
    /// Rate at the end.
    pub min_lr: f64,
    /// Samples of a step for which all rates are meant; they hold for any number when null.
    pub lr_base_size: Option<u64>,
    /// How rates follow the number of samples in a step.
    pub lr_base_scale: LrScale,
}

/// How learning rates follow the number of samples in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LrScale {
    /// With the square root of the number, which suits AdamW (Malladi et al., 2022).
    Sqrt,
    /// With the number (Goyal et al., 2017).
    Linear,
}

/// Shape of the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SchedulerType {
    /// Linear warm-up, then half a cosine.
    Cosine,
    /// Constant.
    None,
}

/// Clipping and accumulation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GradientConfig {
    /// Largest global L2 norm; no clipping when null.
    pub clip_norm: Option<f64>,
    /// Batches per optimizer step.
    pub accumulate_steps: u64,
}

/// Several processes that train together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistributedConfig {
    /// Seconds that a process waits for another before the run ends with an error.
    pub timeout_s: f64,
}

/// Exponential moving average of the weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmaConfig {
    /// Whether it is kept, and used by validation.
    pub enabled: bool,
    /// Fraction of the old average.
    pub decay: f64,
    /// Steps between updates.
    pub update_every_n_steps: u64,
    /// Updates begin after this step.
    pub update_after_step: u64,
}

/// Random changes of the images of training; 0 = none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AugmentationConfig {
    /// Whether the frames of a sample change alike.
    pub pair: AugmentedFrames,
    /// Largest shift, as a fraction of the height or the width.
    pub shift: f64,
    /// Largest relative change of the brightness.
    pub brightness: f64,
    /// Largest relative change of the distance of a pixel to the mean gray of the image.
    pub contrast: f64,
    /// Largest relative change of the distance of a pixel to its gray.
    pub saturation: f64,
}

impl AugmentationConfig {
    /// Whether any image changes.
    #[must_use]
    pub fn is_on(&self) -> bool {
        [self.shift, self.brightness, self.contrast, self.saturation].iter().any(|largest| *largest > 0.0)
    }
}

/// Whether the frames of a sample change alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AugmentedFrames {
    /// All by the same shift and the same colors.
    Same,
    /// Each by itself.
    Independent,
}

/// What is saved when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointConfig {
    /// Steps between checkpoints; one is also written at the end.
    pub every_n_steps: u64,
    /// Newest checkpoints kept; all when null.
    pub keep_last: Option<usize>,
    /// Validation metric that scores a checkpoint.
    pub monitor: String,
    /// Which direction is better.
    pub mode: MonitorMode,
}

/// Which direction of a score is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum MonitorMode {
    Min,
    Max,
}

/// Section `validation`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationConfig {
    /// Training steps between validations.
    pub check_interval: u64,
    /// Most batches of one validation; all when null.
    pub limit_batches: Option<usize>,
    /// Pairs in the reconstruction image.
    pub num_fixed_samples: usize,
}

impl Check for TrainingConfig {
    fn check(&self) -> Checked {
        long_count("max_steps", self.max_steps)?;
        long_count("log_every_n_steps", self.log_every_n_steps)?;
        section("optimizer", self.optimizer.check())?;
        section("scheduler", self.scheduler.check(self.max_steps, self.optimizer.lr))?;
        if let Some(clip_norm) = self.gradient.clip_norm {
            section("gradient", positive("clip_norm", clip_norm))?;
        }
        section("gradient", at_least("accumulate_steps", self.gradient.accumulate_steps, 1))?;
        require(
            !self.cuda_graph || self.gradient.accumulate_steps == 1,
            "cuda_graph",
            format!("a graph is one batch, gradient.accumulate_steps is {}", self.gradient.accumulate_steps),
            "set training.cuda_graph to false, or training.gradient.accumulate_steps to 1",
        )?;
        section("distributed", self.distributed.check())?;
        section("ema", fraction("decay", self.ema.decay, true))?;
        section("ema", long_count("update_every_n_steps", self.ema.update_every_n_steps))?;
        section("augmentation", self.augmentation.check())?;
        section("checkpoint", self.checkpoint.check())?;
        require(
            self.resume_from_checkpoint.is_none() || self.load_weights_from.is_none(),
            "load_weights_from",
            "a run either resumes (resume_from_checkpoint) or starts from weights (load_weights_from)",
            "set one of the two to null",
        )
    }
}

/// Seconds above which a wait for another process is an oversight.
const MAX_TIMEOUT_S: f64 = 86_400.0;

impl Check for DistributedConfig {
    fn check(&self) -> Checked {
        positive("timeout_s", self.timeout_s)?;
        let message = format!("{} s is more than a day", self.timeout_s);
        require(self.timeout_s <= MAX_TIMEOUT_S, "timeout_s", message, "set it to fewer seconds")
    }
}

impl Check for OptimizerConfig {
    fn check(&self) -> Checked {
        positive("lr", self.lr)?;
        self.betas.iter().try_for_each(|&beta| fraction("betas", beta, true))?;
        positive("eps", self.eps)?;
        not_negative("weight_decay", self.weight_decay)
    }
}

impl SchedulerConfig {
    /// What all rates are multiplied by in a run whose steps have `num_samples` samples.
    #[must_use]
    pub fn lr_factor(&self, num_samples: u64) -> f64 {
        let Some(base_size) = self.lr_base_size else { return 1.0 };
        let ratio = num_samples as f64 / base_size as f64;
        match self.lr_base_scale {
            LrScale::Sqrt => ratio.sqrt(),
            LrScale::Linear => ratio,
        }
    }

    /// Checks the schedule of a run of `max_steps` steps with the base rate `lr`.
    ///
    /// # Errors
    /// A warm-up that does not fit into the run, or a rate that is negative or above `lr`.
    pub fn check(&self, max_steps: u64, lr: f64) -> Result<(), Problem> {
        let is_constant = self.kind == SchedulerType::None;
        for (key, rate) in [("warmup_start_lr", self.warmup_start_lr), ("min_lr", self.min_lr)] {
            not_negative(key, rate)?;
            let message = format!("{rate} is above training.optimizer.lr ({lr})");
            require(is_constant || rate <= lr, key, message, "set it to training.optimizer.lr or less")?;
        }
        if let Some(base_size) = self.lr_base_size {
            long_count("lr_base_size", base_size)?;
        }
        require(
            is_constant || self.warmup_steps < max_steps,
            "warmup_steps",
            format!("a warm-up of {} steps is not shorter than the run of {max_steps}", self.warmup_steps),
            "set it below training.max_steps",
        )
    }
}

impl Check for AugmentationConfig {
    fn check(&self) -> Checked {
        fraction("shift", self.shift, true)?;
        fraction("brightness", self.brightness, false)?;
        fraction("contrast", self.contrast, false)?;
        fraction("saturation", self.saturation, false)
    }
}

impl Check for CheckpointConfig {
    fn check(&self) -> Checked {
        long_count("every_n_steps", self.every_n_steps)?;
        if let Some(keep_last) = self.keep_last {
            long_count("keep_last", keep_last as u64)?;
        }
        require(!self.monitor.is_empty(), "monitor", "no metric", "name one, for example val/loss")
    }
}

impl Check for ValidationConfig {
    fn check(&self) -> Checked {
        long_count("check_interval", self.check_interval)?;
        at_least("num_fixed_samples", self.num_fixed_samples, 0)?;
        self.limit_batches.map_or(Ok(()), |limit| long_count("limit_batches", limit as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cosine_schedule_fits_into_the_run_and_stays_below_the_base_rate() {
        let schedule = |warmup_steps, warmup_start_lr, min_lr| SchedulerConfig {
            kind: SchedulerType::Cosine,
            warmup_steps,
            warmup_start_lr,
            min_lr,
            lr_base_size: None,
            lr_base_scale: LrScale::Sqrt,
        };
        assert_eq!(schedule(9, 0.0, 1e-4).check(10, 1e-4), Ok(()));
        for (schedule, key) in [
            (schedule(10, 0.0, 0.0), "warmup_steps"),
            (schedule(1, 2e-4, 0.0), "warmup_start_lr"),
            (schedule(1, 0.0, -1e-6), "min_lr"),
            (schedule(1, 0.0, 2e-4), "min_lr"),
        ] {
            let problem = schedule.check(10, 1e-4).err();
            assert_eq!(problem.as_ref().and_then(|problem| problem.key()), Some(key), "{problem:?}");
        }
    }
}
