//! Sections that every stage shares.

use super::Stage;
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
}

/// Several runs of one experiment; [`crate::sweep`] makes them.
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
