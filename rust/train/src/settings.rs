//! What a run is told.

use crate::{Result, TrainError, gradient};
use hlrp_config::Composed;
use hlrp_schema::{Precision, TrainingConfig, ValidationConfig};
use hlrp_torch::World;
use std::path::PathBuf;
use tch::Device;

/// Settings of a run, from the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Section `training`.
    pub training: TrainingConfig,
    /// Section `validation`.
    pub validation: ValidationConfig,
    /// Number format of the forward pass.
    pub precision: Precision,
    /// The processes that train together.
    pub world: World,
    /// Device of the model's parameters.
    pub device: Device,
    /// Directory of the run; checkpoints lie in its folder `checkpoints`.
    pub run_dir: PathBuf,
    /// GiB that a write must leave free.
    pub min_free_gb: f64,
    /// The whole configuration: stored in every checkpoint, compared when a run continues.
    pub config: Composed,
}

impl Settings {
    /// Refuses numbers that make no sense; optimizer, schedule and averages check their own.
    pub(crate) fn check(&self) -> Result<()> {
        let training = &self.training;
        let counts = [
            ("training.max_steps", training.max_steps),
            ("training.log_every_n_steps", training.log_every_n_steps),
            ("training.gradient.accumulate_steps", training.gradient.accumulate_steps),
            ("training.checkpoint.every_n_steps", training.checkpoint.every_n_steps),
            ("training.checkpoint.keep_last", training.checkpoint.keep_last.map_or(1, |count| count as u64)),
            ("validation.check_interval", self.validation.check_interval),
            ("validation.limit_batches", self.validation.limit_batches.map_or(1, |count| count as u64)),
        ];
        for (key, count) in counts {
            if count == 0 {
                return Err(TrainError::Setting { key, reason: "0 is not allowed here".to_owned() });
            }
        }
        if training.resume_from_checkpoint.is_some() && training.load_weights_from.is_some() {
            return Err(TrainError::Setting {
                key: "training.load_weights_from",
                reason: "it excludes training.resume_from_checkpoint\n  hint: set one of them to null".to_owned(),
            });
        }
        gradient::check(training.gradient.clip_norm)
    }

    /// `bf16-mixed` or `32-true`.
    pub(crate) fn precision_name(&self) -> &'static str {
        match self.precision {
            Precision::Bf16Mixed => "bf16-mixed",
            Precision::Float32 => "32-true",
        }
    }

    /// The device as people and configurations name it.
    pub(crate) fn device_name(&self) -> String {
        match self.device {
            Device::Cuda(index) => match hlrp_torch::cuda::device_name(index) {
                Ok(name) => format!("cuda:{index} ({name})"),
                Err(_) => format!("cuda:{index}"),
            },
            _ => "cpu".to_owned(),
        }
    }
}
