//! What every stage has in common: the sections of any run, and what the training engine reads.

use crate::cluster::ClusterConfig;
use crate::data::DataConfig;
use crate::device::Device;
use crate::laq::LaqConfig;
use crate::rules::{Checked, MAX_THREADS, not_negative, require, section, within};
use crate::stage::{Stage, StageConfig};
use crate::submit::SubmitConfig;
use crate::training::{TrainingConfig, ValidationConfig};
use crate::vla::VlaConfig;
use hlrp_config::{Check, secret::has_secret};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, ops::Deref, path::PathBuf};
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
    /// Folder of the datasets.
    pub datasets_dir: PathBuf,
    /// Folder of the run directories.
    pub runs_dir: PathBuf,
    /// Folder of the caches.
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
    /// Files that may still be made after a write.
    pub min_free_files: u64,
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
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Precision {
    /// Float32 master weights, bf16 autocast.
    #[serde(rename = "bf16-mixed")]
    #[cfg_attr(feature = "clap", value(name = "bf16-mixed"))]
    Bf16Mixed,
    /// Float32 throughout.
    #[serde(rename = "32-true")]
    #[cfg_attr(feature = "clap", value(name = "32-true"))]
    Float32,
}

/// What the configurations of all stages have in common.
#[derive(Debug, Clone, Copy)]
pub struct CommonConfig<'a> {
    /// Seed of everything random.
    pub seed: u64,
    /// Number format.
    pub precision: Precision,
    /// Where tensors are computed.
    pub device: Device,
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
    /// Several runs of the experiment.
    pub sweep: &'a SweepConfig,
    /// How it is queued.
    pub submit: &'a SubmitConfig,
}

/// Defines the whole configuration of a stage: the fields that all stages have, then its own. (serde's `flatten` does not go with
/// `deny_unknown_fields`.)
macro_rules! stage_config {
    ($(#[$doc:meta])* $name:ident of $stage:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// Seed of everything random.
            pub seed: u64,
            /// Number format of stages 1 and 2.
            pub precision: crate::run::Precision,
            /// Where tensors are computed.
            pub device: crate::device::Device,
            /// CPU threads of tensor work; all cores when null.
            pub num_threads: Option<usize>,
            /// Name of the run.
            pub experiment: crate::run::ExperimentConfig,
            /// Where things are stored.
            pub paths: crate::run::PathsConfig,
            /// What is written.
            pub logging: crate::run::LoggingConfig,
            /// Where the run computes, and where it may write.
            pub cluster: crate::cluster::ClusterConfig,
            /// Several runs of the experiment.
            pub sweep: crate::run::SweepConfig,
            /// How it is queued.
            pub submit: crate::submit::SubmitConfig,
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl crate::stage::StageConfig for $name {
            const STAGE: crate::stage::Stage = crate::stage::Stage::$stage;

            fn common(&self) -> crate::run::CommonConfig<'_> {
                crate::run::CommonConfig {
                    seed: self.seed,
                    precision: self.precision,
                    device: self.device,
                    num_threads: self.num_threads,
                    experiment: &self.experiment,
                    paths: &self.paths,
                    logging: &self.logging,
                    cluster: &self.cluster,
                    sweep: &self.sweep,
                    submit: &self.submit,
                }
            }
        }
    };
}
pub(crate) use stage_config;

/// The part of a training's configuration that the engine and its program read.
#[derive(Debug, Clone)]
pub struct RunConfig<'a> {
    /// What all stages have in common; its fields are read through this struct.
    pub common: CommonConfig<'a>,
    /// The data.
    pub data: &'a DataConfig,
    /// The optimization.
    pub training: &'a TrainingConfig,
    /// The validation.
    pub validation: ValidationConfig,
}

impl<'a> Deref for RunConfig<'a> {
    type Target = CommonConfig<'a>;

    fn deref(&self) -> &Self::Target {
        &self.common
    }
}

/// The whole configuration of a training.
pub trait TrainingRun: StageConfig {
    /// The common part.
    fn run(&self) -> RunConfig<'_>;
}

impl TrainingRun for LaqConfig {
    fn run(&self) -> RunConfig<'_> {
        RunConfig {
            common: self.common(),
            data: &self.data,
            training: &self.training,
            validation: self.validation.clone(),
        }
    }
}

impl TrainingRun for VlaConfig {
    fn run(&self) -> RunConfig<'_> {
        RunConfig {
            common: self.common(),
            data: &self.data,
            training: &self.training,
            validation: self.validation.shared(),
        }
    }
}

/// What the configurations of all trainings share.
pub(crate) fn check_training(run: &RunConfig<'_>) -> Checked {
    check_common(run)?;
    check_no_wandb(run.logging)?;
    if run.data.cache.enabled {
        run.cluster.refuse_output("data.cache.dir", &run.data.cache.dir)?;
    }
    section("data", run.data.check())?;
    section("training", run.training.check())?;
    section("validation", run.validation.check())
}

/// What every stage has in common.
pub(crate) fn check_common(common: &CommonConfig<'_>) -> Checked {
    section("experiment", common.experiment.check())?;
    if let Some(num_threads) = common.num_threads {
        within("num_threads", num_threads, 1, MAX_THREADS)?;
    }
    section("logging", not_negative("min_free_gb", common.logging.min_free_gb))?;
    section("cluster", common.cluster.check())?;
    section("submit", common.submit.check())?;
    common.submit.check_on(common.cluster)?;
    common.cluster.refuse_output("logging.run_dir", &common.logging.run_dir)?;
    common.cluster.refuse_output("paths.cache_dir", &common.paths.cache_dir)
}

/// Stages 1 and 2 have no W&B client; LeRobot has one, in stage 3.
fn check_no_wandb(logging: &LoggingConfig) -> Checked {
    require(
        !logging.use_wandb,
        "logging.use_wandb",
        "this stage does not log to Weights & Biases yet",
        "set it to false; metrics.jsonl and plots/ in the run directory have the metrics and curves",
    )
}

impl Check for ExperimentConfig {
    fn check(&self) -> Checked {
        let name = &self.name;
        require(
            !has_secret(name),
            "name",
            "it looks like a secret, but it is part of the name of the run directory",
            "choose another name",
        )?;
        let good = !name.is_empty() && !name.starts_with(['.', '-']) && !name.contains(['/', '\\', '\0', '\n', '=']);
        require(good, "name", format!("'{name}' is not a directory name"), "use letters, digits, '_', '-' and '.'")
    }
}
