//! What is submitted: one plan for each run on each cluster, kept as JSON beside its script.

use crate::{
    error::{Result, SubmitError},
    outcome::{COMMENT_PREFIX, SUBMIT_DIR},
};
use hlrp_config::foreign::read_text;
use hlrp_schema::{ContainerRuntime, Stage};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    path::{Path, PathBuf},
};

/// One run as a job of one cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobPlan {
    /// Version of this layout, [`JobPlan::FORMAT`].
    pub format: u32,
    /// Links all jobs of one run: it is in their comments.
    pub token: Token,
    /// Option of `cluster` that the job is for.
    pub cluster: String,
    /// What the run does.
    pub stage: Stage,
    /// Name of the job.
    pub job_name: String,
    /// The run's directory.
    pub run_dir: PathBuf,
    /// Folder with script, plan, claims, ids and exit codes.
    pub submit_dir: PathBuf,
    /// The step, of a pipeline.
    pub step: Option<String>,
    /// The step before it.
    pub after: Option<String>,
    /// Working directory of the program.
    pub working_dir: PathBuf,
    /// `hlrp` on the host, which the batch script calls.
    pub program: PathBuf,
    /// Arguments of `hlrp` that start the run.
    pub start: Vec<String>,
    /// Arguments of `hlrp` that continue it from its last checkpoint.
    pub resume: Vec<String>,
    /// What the job asks for.
    pub resources: Resources,
    /// The container that the program runs in; none for the programs of the host.
    pub container: Option<Container>,
    /// Cache folders are made below it.
    pub cache_dir: PathBuf,
    /// Seconds before the time limit at which the job is told to save its work.
    pub save_before_limit_s: u64,
    /// How often the job may be queued again.
    pub max_restarts: u32,
    /// Shell lines that run before the program.
    pub pre_commands: Vec<String>,
    /// All clusters on which the run is queued, this one too.
    pub race: Vec<Rival>,
}

/// Sixteen hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

/// A cluster on which the run is queued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rival {
    /// Option of `cluster`.
    pub cluster: String,
    /// Its Slurm, where the site has several.
    pub clusters: Option<String>,
}

/// What a job asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// One partition, or several with commas; empty without Slurm.
    pub partition: String,
    /// Quality of service.
    pub qos: Option<String>,
    /// Account that is charged.
    pub account: Option<String>,
    /// Slurm cluster (`-M`).
    pub clusters: Option<String>,
    /// Machines.
    pub num_nodes: u32,
    /// Processes on each machine.
    pub tasks_per_node: u32,
    /// GPUs of each machine.
    pub gpus_per_node: u32,
    /// CPU cores of each task.
    pub cpus_per_task: Option<u32>,
    /// GB of main memory of each machine.
    pub mem_gb: Option<u32>,
    /// `HH:MM:SS` or `D-HH:MM:SS`.
    pub time_limit: String,
}

/// The container of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// What runs it.
    pub runtime: ContainerRuntime,
    /// The image file.
    pub image: PathBuf,
    /// The command `hlrp` inside the image.
    pub program: String,
    /// Paths that the container sees under their own names.
    pub mounts: Vec<PathBuf>,
}

impl Token {
    /// A new one.
    pub fn random() -> Self {
        Self(format!("{:016x}", RandomState::new().build_hasher().finish()))
    }

    /// The first word of the comments of all jobs of this run.
    pub fn comment(&self) -> String {
        format!("{COMMENT_PREFIX}{self}")
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Resources {
    /// Processes in all.
    pub fn num_tasks(&self) -> u32 {
        self.num_nodes * self.tasks_per_node
    }
}

/// How long a job may take that only checks something, an image that has to be unpacked included.
const SHORT_TIME: &str = "00:05:00";

/// The option of `hlrp pipeline` that names a step; it and the name end [`JobPlan::start`].
pub const STEP: &str = "--step";

/// What stands in place of a step in the comment of a job that checks the node.
pub const PREFLIGHT: &str = "preflight";

impl JobPlan {
    /// The layout that this code writes.
    pub const FORMAT: u32 = 1;

    /// The comment of the job: `hlrp:<token> <cluster>`, then the step of a pipeline.
    pub fn comment(&self) -> String {
        let step = self.step.iter().map(|step| format!(" {step}")).collect::<String>();
        format!("{} {}{step}", self.token.comment(), self.cluster)
    }

    /// The plan in `run_dir` of the job with this comment; none if it has none there. Of a check it is that of the job that is checked.
    pub fn of_comment(run_dir: &Path, comment: &str) -> Option<Self> {
        let mut words = comment.split_whitespace().skip(1);
        let (cluster, step) = (words.next()?, words.next().filter(|word| *word != PREFLIGHT));
        let folder = run_dir.join(SUBMIT_DIR).join(step.unwrap_or_default());
        Self::read(&plan_path(&folder, cluster)).ok()
    }

    /// Whether Slurm has its job; otherwise it runs on this machine.
    pub fn is_queued(&self) -> bool {
        !self.resources.partition.is_empty()
    }

    /// The job that checks the node before this one.
    #[must_use]
    pub fn preflight(&self) -> Self {
        self.short(PREFLIGHT)
    }

    /// A short job of the same run with the same needs; `name` is in its name and comment.
    #[must_use]
    pub fn short(&self, name: &str) -> Self {
        let mut plan = self.clone();
        plan.step = Some(name.to_owned());
        plan.job_name = format!("{}_{name}", self.job_name);
        plan.resources.time_limit = SHORT_TIME.to_owned();
        plan.save_before_limit_s = 60;
        plan
    }

    /// The arguments of `start` that compose the run's configuration: without the command, and without the step of a pipeline.
    pub fn config_arguments(&self) -> &[String] {
        let arguments = self.start.get(1..).unwrap_or_default();
        let end = arguments.iter().position(|argument| argument == STEP).unwrap_or(arguments.len());
        &arguments[..end]
    }

    /// Where the script of [`preflight`](Self::preflight) is kept.
    pub fn preflight_script_path(&self) -> PathBuf {
        self.submit_dir.join(format!("{}.preflight.sbatch", self.cluster))
    }

    /// Where the plan is kept.
    pub fn path(&self) -> PathBuf {
        plan_path(&self.submit_dir, &self.cluster)
    }

    /// Where its script is kept.
    pub fn script_path(&self) -> PathBuf {
        self.submit_dir.join(format!("{}.sbatch", self.cluster))
    }

    /// Reads a plan.
    ///
    /// # Errors
    /// The file is missing, or is not a plan of this version.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read_text(path).map_err(SubmitError::io("read", path))?;
        let malformed = |reason: String| SubmitError::Malformed { path: path.to_path_buf(), reason };
        let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        if value["format"] != Self::FORMAT {
            return Err(malformed(format!("format {}, but this program reads {}", value["format"], Self::FORMAT)));
        }
        serde_json::from_value(value).map_err(|error| malformed(error.to_string()))
    }
}

fn plan_path(folder: &Path, cluster: &str) -> PathBuf {
    folder.join(format!("{cluster}.json"))
}
