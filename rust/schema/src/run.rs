//! What every stage has in common: the sections of any run, and what the training engine reads.

use crate::cluster::ClusterConfig;
use crate::data::DataConfig;
use crate::device::Device;
use crate::laq::LaqConfig;
use crate::processes::NumProcesses;
use crate::rules::{Checked, MAX_LONG, MAX_THREADS, not_negative, positive, require, section, within};
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
    /// How; none in a run of a version without it.
    pub wandb: Option<WandbConfig>,
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
    /// Event files for TensorBoard.
    pub tensorboard: bool,
}

/// The run on Weights & Biases. What is null comes from the `WANDB_*` variable of its name, else from W&B's settings file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WandbConfig {
    /// `online`, `offline` or `disabled`.
    pub mode: Option<String>,
    /// Project.
    pub project: Option<String>,
    /// User or team.
    pub entity: Option<String>,
    /// Name of the run; `experiment.name` when none.
    pub name: Option<String>,
    /// Group.
    pub group: Option<String>,
    /// Job type.
    pub job_type: Option<String>,
    /// Tags.
    pub tags: Option<Vec<String>>,
    /// Notes.
    pub notes: Option<String>,
    /// Parent of the folder `wandb`; the run directory when none.
    pub dir: Option<PathBuf>,
    /// Address of the API.
    pub base_url: Option<String>,
    /// Seconds between two samples of system metrics; none are taken when none.
    pub stats_interval_s: Option<f64>,
    /// Least seconds between two requests with data.
    pub upload_interval_s: f64,
    /// Seconds without a request after which a sign of life is sent.
    pub heartbeat_interval_s: f64,
    /// Seconds before a failed request is repeated for the first time; the pause doubles.
    pub retry_min_s: f64,
    /// Longest pause in seconds before a failed request is repeated.
    pub retry_max_s: f64,
    /// Most seconds that the end of a run waits for W&B.
    pub finish_timeout_s: f64,
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
    /// Processes that train together.
    pub num_processes: NumProcesses,
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
            /// CPU threads of tensor work of each process; all cores, divided among the processes, when null.
            pub num_threads: Option<usize>,
            /// Processes that train together in stages 1 and 2.
            pub num_processes: crate::processes::NumProcesses,
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
                    num_processes: self.num_processes,
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
            validation: self.validation.shared(),
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
    common.num_processes.check()?;
    section("logging", not_negative("min_free_gb", common.logging.min_free_gb))?;
    section("logging", within("min_free_files", common.logging.min_free_files, 0, MAX_LONG))?;
    if let Some(wandb) = &common.logging.wandb {
        section("logging.wandb", wandb.check())?;
    }
    section("cluster", common.cluster.check())?;
    section("submit", common.submit.check())?;
    common.submit.check_on(common.cluster)?;
    common.cluster.refuse_output("logging.run_dir", &common.logging.run_dir)?;
    common.cluster.refuse_output("paths.cache_dir", &common.paths.cache_dir)
}

/// Seconds above which an interval is an oversight.
const MAX_INTERVAL_S: f64 = 86_400.0;

impl Check for WandbConfig {
    fn check(&self) -> Checked {
        if let Some(mode) = &self.mode {
            let known = ["online", "offline", "disabled"].contains(&mode.as_str());
            require(known, "mode", format!("unknown mode '{mode}'"), "use online, offline or disabled")?;
        }
        let intervals = [
            ("stats_interval_s", self.stats_interval_s.unwrap_or(1.0)),
            ("upload_interval_s", self.upload_interval_s),
            ("heartbeat_interval_s", self.heartbeat_interval_s),
            ("retry_min_s", self.retry_min_s),
            ("retry_max_s", self.retry_max_s),
            ("finish_timeout_s", self.finish_timeout_s),
        ];
        for (key, seconds) in intervals {
            positive(key, seconds)?;
            require(
                seconds <= MAX_INTERVAL_S,
                key,
                format!("{seconds} s is more than a day"),
                "set it to fewer seconds",
            )?;
        }
        Ok(())
    }
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
