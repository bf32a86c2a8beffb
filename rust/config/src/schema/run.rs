//! What the configurations of all trainings have in common.

use super::{
    BackboneConfig, ClusterConfig, DataConfig, ExperimentConfig, LaqConfig, LoggingConfig, PathsConfig, Precision,
    TrainingConfig, ValidationConfig, VlaConfig,
};
use crate::Check;
use serde::de::DeserializeOwned;

/// The part of a training's configuration that the engine and its program read.
pub struct RunConfig<'a> {
    /// Seed of everything random.
    pub seed: u64,
    /// Number format.
    pub precision: Precision,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: &'a str,
    /// CPU threads; all cores when none.
    pub num_threads: Option<usize>,
    /// Name of the run.
    pub experiment: &'a ExperimentConfig,
    /// Where things are stored.
    pub paths: &'a PathsConfig,
    /// What is written.
    pub logging: &'a LoggingConfig,
    /// Where the run computes, and where it may write.
    pub cluster: &'a ClusterConfig,
    /// The data.
    pub data: &'a DataConfig,
    /// The optimization.
    pub training: &'a TrainingConfig,
    /// The validation.
    pub validation: ValidationConfig,
}

/// The whole configuration of a training.
pub trait TrainingRun: Check + DeserializeOwned {
    /// The common part.
    fn run(&self) -> RunConfig<'_>;

    /// Where a pretrained backbone comes from, in a stage that has one.
    fn backbone(&self) -> Option<&BackboneConfig> {
        None
    }
}

impl TrainingRun for LaqConfig {
    fn run(&self) -> RunConfig<'_> {
        RunConfig {
            seed: self.seed,
            precision: self.precision,
            device: &self.device,
            num_threads: self.num_threads,
            experiment: &self.experiment,
            paths: &self.paths,
            logging: &self.logging,
            cluster: &self.cluster,
            data: &self.data,
            training: &self.training,
            validation: self.validation.clone(),
        }
    }
}

impl TrainingRun for VlaConfig {
    fn run(&self) -> RunConfig<'_> {
        RunConfig {
            seed: self.seed,
            precision: self.precision,
            device: &self.device,
            num_threads: self.num_threads,
            experiment: &self.experiment,
            paths: &self.paths,
            logging: &self.logging,
            cluster: &self.cluster,
            data: &self.data,
            training: &self.training,
            validation: self.validation.shared(),
        }
    }

    fn backbone(&self) -> Option<&BackboneConfig> {
        Some(&self.model.backbone)
    }
}
