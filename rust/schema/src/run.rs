//! What every stage has in common: the sections of any run, and what the training engine reads.

use crate::cluster::ClusterConfig;
use crate::data::DataConfig;
use crate::laq::LaqConfig;
use crate::rules::{Checked, at_least, not_negative, require, section};
use crate::stage::{Stage, StageConfig};
use crate::training::{TrainingConfig, ValidationConfig};
use crate::vla::{BackboneConfig, VlaConfig};
use hlrp_config::Check;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};
use tracing::level_filters::LevelFilter;

/// Names the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExperimentConfig {
    /// What is trained.
    pub stage: Stage,
    /// Names the run directory.
    pub name: String,
    /// One line for the manifest and the result tables.
    pub description: String,
}

/// Where things are stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathsConfig {
    /// Storage root.
    pub root: PathBuf,
    /// Datasets lie here.
    pub datasets_dir: PathBuf,
    /// Run directories lie here.
    pub runs_dir: PathBuf,
    /// Caches lie here.
    pub cache_dir: PathBuf,
}

/// What is written while running.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoggingConfig {
    /// Least severe level that is shown.
    pub level: LogLevel,
    /// Directory of this run.
    pub run_dir: PathBuf,
    /// GiB that a write must leave free.
    pub min_free_gb: f64,
    /// Whether the run is logged to Weights & Biases.
    pub use_wandb: bool,
    /// Where metrics and images go besides `metrics.jsonl`.
    pub sinks: SinksConfig,
}

/// Destinations of metrics and images, each with its options.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinksConfig {
    /// Progress and log lines.
    pub console: bool,
    /// PNG files in the folder of each validation.
    pub png: bool,
}

/// Several runs of one experiment; [`hlrp_config::sweep`] makes them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepConfig {
    /// Dotted key or group to the values that it takes in turn; one run when null.
    pub params: Option<BTreeMap<String, serde_json::Value>>,
}

/// Severity of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

/// Number format of the computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precision {
    /// Float32 master weights, bf16 autocast.
    #[serde(rename = "bf16-mixed")]
    Bf16Mixed,
    /// Float32 throughout.
    #[serde(rename = "32-true")]
    Float32,
}

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
pub trait TrainingRun: StageConfig {
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

/// Grids of tokens per frame that the quantizer knows, with the numbers of codes that each can give.

/// A share from 0 to 1; without 1 itself where `open`.

/// What the configurations of all trainings share.

pub(crate) fn check_training(run: &RunConfig<'_>) -> Checked {
    check_run(run.experiment, run.paths, run.logging, run.cluster)?;
    check_no_wandb(run.logging)?;
    if run.data.cache.enabled {
        run.cluster.refuse_outside("data.cache.dir", &run.data.cache.dir)?;
    }
    check_device(run.device)?;
    if let Some(num_threads) = run.num_threads {
        at_least("num_threads", num_threads, 1)?;
    }
    section("data", run.data.check())?;
    section("training", run.training.check())?;
    section("validation", run.validation.check())
}

/// Checks what every stage has in common: the name of a run, and where it writes.

pub(crate) fn check_run(
    experiment: &ExperimentConfig,
    paths: &PathsConfig,
    logging: &LoggingConfig,
    cluster: &ClusterConfig,
) -> Checked {
    section("experiment", experiment.check())?;
    section("logging", not_negative("min_free_gb", logging.min_free_gb))?;
    section("cluster", cluster.check())?;
    cluster.refuse_outside("logging.run_dir", &logging.run_dir)?;
    cluster.refuse_outside("paths.cache_dir", &paths.cache_dir)
}

/// Stages 1 and 2 do not speak to W&B; LeRobot does, in stage 3.

fn check_no_wandb(logging: &LoggingConfig) -> Checked {
    require(
        !logging.use_wandb,
        "logging.use_wandb",
        "this stage does not log to Weights & Biases yet",
        "set it to false; metrics.jsonl and plots/ in the run directory hold the numbers and curves",
    )
}

/// Whether a text is `auto`, `cpu`, `cuda` or `cuda:N`.

fn is_device(device: &str) -> bool {
    let index = device.strip_prefix("cuda:").map(|index| index.parse::<usize>().is_ok());
    matches!(device, "auto" | "cpu" | "cuda") || index == Some(true)
}

fn check_device(device: &str) -> Checked {
    let hint = "set it to auto, cpu, cuda or cuda:N";
    require(is_device(device), "device", format!("'{device}' is no device"), hint)
}

/// LeRobot knows the devices of stages 1 and 2 and one more.

pub(crate) fn check_policy_device(device: &str) -> Checked {
    let good = is_device(device) || device == "mps";
    let hint = "set it to auto, cpu, cuda, cuda:N or mps";
    require(good, "policy_device", format!("'{device}' is no device"), hint)
}

impl Check for ExperimentConfig {
    fn check(&self) -> Checked {
        let name = &self.name;
        let good = !name.is_empty() && !name.starts_with(['.', '-']) && !name.contains(['/', '\\', '\0', '\n', '=']);
        require(good, "name", format!("'{name}' cannot name a directory"), "use letters, digits, '_', '-' and '.'")
    }
}
