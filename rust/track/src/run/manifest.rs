//! `run.json`: what a run records about itself. It never contains a secret.

use super::{artifact::Artifact, devices::Devices, provenance::GitState};
use crate::{Result, TrackError, env, exit_code, fs::write_json, metrics::MetricSpec};
use hlrp_config::foreign::read_text;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, path::Path, path::PathBuf};

/// Name of the file in a run directory.
pub const FILE_NAME: &str = "run.json";
/// Its name in format 1.
pub(super) const FORMER_NAME: &str = "manifest.json";
/// Its name after the run has been resumed.
pub(super) const FORMER_ASIDE: &str = "manifest.superseded.json";

/// The whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this layout, [`Manifest::FORMAT`].
    pub format: u32,
    /// Program that made the run.
    pub program: String,
    /// `experiment.name`.
    pub experiment: String,
    /// `experiment.description`.
    pub description: String,
    /// The metrics that it records: their labels, and where they are drawn.
    pub metrics: Vec<MetricSpec>,
    /// One entry for each time a process worked on the run, oldest first.
    pub sessions: Vec<Session>,
}

/// One process that worked on a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// How it ended.
    #[serde(flatten)]
    pub status: RunStatus,
    /// Start, RFC 3339 local time.
    pub started_at: String,
    /// End; nothing while it runs and after a kill.
    pub ended_at: Option<String>,
    /// Optimizer steps done before it.
    pub start_step: u64,
    /// The command line, values of secrets replaced.
    pub command: Vec<String>,
    /// Overrides of the command line, values of secrets replaced.
    pub overrides: Vec<String>,
    /// The folder that relative paths start from; none in runs of format 2.
    pub working_dir: Option<PathBuf>,
    /// Checkpoints and artifacts that it started from.
    pub inputs: Vec<Artifact>,
    /// The datasets by name.
    pub data: BTreeMap<String, DataSource>,
    /// Checkpoints and artifacts that it left, recorded at its end.
    pub outputs: Vec<Artifact>,
    /// What is wrong with what it trained, in a sentence with a hint; nothing where nothing is.
    pub verdict: Option<String>,
    /// Addresses of its records elsewhere, by service.
    pub links: BTreeMap<String, String>,
    /// Versions of what computed.
    pub versions: BTreeMap<String, String>,
    /// Commit of the configuration's repository; nothing outside one.
    pub git: Option<GitState>,
    /// Host name.
    pub host: String,
    /// Processor, memory and GPUs of the host; none in runs of format 2.
    pub devices: Option<Devices>,
    /// CPU threads of the tensor library.
    pub num_threads: usize,
    /// The Slurm job; nothing outside one.
    pub slurm: Option<SlurmJob>,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum RunStatus {
    /// Not yet, as far as the file knows.
    Running,
    /// With its last step done.
    Finished,
    /// By a signal, with a checkpoint to continue from.
    Interrupted,
    /// By an error.
    Failed {
        /// The error's text.
        reason: String,
        /// Exit code of the program, where it is known.
        exit_code: Option<u8>,
    },
    /// Without a chance to record anything; noticed when the run was continued.
    Killed,
}

impl RunStatus {
    /// The program's exit code; none while it runs and where it is not known.
    pub fn exit_code(&self) -> Option<u8> {
        match self {
            Self::Running => None,
            Self::Finished => Some(0),
            Self::Interrupted => Some(exit_code::INTERRUPTED),
            Self::Failed { exit_code, .. } => *exit_code,
            Self::Killed => None,
        }
    }
}

/// A dataset of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataSource {
    /// Its folder.
    pub root: PathBuf,
    /// Its name on the Hugging Face Hub; none where the run names a folder.
    pub repo_id: Option<String>,
    /// Its commit there.
    pub commit: Option<String>,
    /// Names its content wherever its folder is.
    pub fingerprint: String,
    /// Its episodes.
    pub num_episodes: u64,
    /// How much of the training data shows its actions; none where it has none, or where nothing is trained.
    pub labels: Option<LabelShare>,
}

/// Labelled data among the training data of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelShare {
    /// Training episodes whose actions may be seen.
    pub num_episodes: u64,
    /// Samples of these episodes.
    pub num_samples: u64,
    /// All training episodes.
    pub of_episodes: u64,
    /// Samples of all training episodes.
    pub of_samples: u64,
}

/// The Slurm job of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlurmJob {
    /// Job id.
    pub id: String,
    /// Cluster.
    pub cluster: Option<String>,
    /// Partition.
    pub partition: Option<String>,
    /// Nodes.
    pub nodes: Option<String>,
}

impl SlurmJob {
    /// The job that this process runs in.
    pub fn from_env() -> Option<Self> {
        Some(Self {
            id: env::get(env::SLURM_JOB_ID)?,
            cluster: env::get(env::SLURM_CLUSTER_NAME),
            partition: env::get(env::SLURM_JOB_PARTITION),
            nodes: env::get(env::SLURM_JOB_NODELIST),
        })
    }
}

/// A time of a session in seconds of Unix time.
pub fn unix_seconds(time: &str) -> Option<i64> {
    Some(time.parse::<jiff::Timestamp>().ok()?.as_second())
}

impl Manifest {
    /// The layout that this code writes.
    pub const FORMAT: u32 = 3;

    /// The file of `run_dir`: `run.json`, or what format 1 called it; none where there is no run.
    pub fn path(run_dir: &Path) -> Option<PathBuf> {
        [FILE_NAME, FORMER_NAME].map(|name| run_dir.join(name)).into_iter().find(|path| path.is_file())
    }

    /// Reads what the run in `run_dir` records; older formats are migrated.
    ///
    /// # Errors
    /// The file is missing, or has another format.
    pub fn read(run_dir: &Path) -> Result<Self> {
        let path = Self::path(run_dir).unwrap_or_else(|| run_dir.join(FILE_NAME));
        let text = read_text(&path).map_err(TrackError::io("read", &path))?;
        let malformed = |line, reason| TrackError::Malformed { path: path.clone(), line, reason };
        let mut value: Value =
            serde_json::from_str(&text).map_err(|error| malformed(Some(error.line()), error.to_string()))?;
        migrate(&mut value);
        if value["format"] != Self::FORMAT {
            let reason = format!("format {}, but this program reads format {}", value["format"], Self::FORMAT);
            return Err(malformed(None, reason));
        }
        serde_json::from_value(value).map_err(|error| malformed(None, error.to_string()))
    }

    /// Writes the file whole.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        write_json(path, self)
    }
}

/// Brings what an older format holds up to date: format 1 declared no metrics, format 2 recorded neither datasets, outputs nor links.
fn migrate(value: &mut Value) {
    if value["format"] == 1 && value["metrics"].is_null() {
        value["metrics"] = Value::Array(Vec::new());
        value["format"] = 2.into();
    }
    if value["format"] == 2 {
        value["format"] = Manifest::FORMAT.into();
    }
    for session in value["sessions"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        session.entry("data").or_insert_with(|| Value::Object(Map::new()));
        session.entry("outputs").or_insert_with(|| Value::Array(Vec::new()));
        session.entry("links").or_insert_with(|| Value::Object(Map::new()));
    }
}
