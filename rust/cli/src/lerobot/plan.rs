//! What a training starts from, where it writes, and the command that does it.

use super::{
    checkpoints::{self, last_checkpoint},
    flags,
    installation::Installation,
    options::{CONFIG, TrainOptions},
    prepare::Needs,
    train::NAME,
    training_log::metrics,
};
use crate::{child::Invocation, error::CommandError};
use anyhow::Result;
use hlrp_config::{Composed, Difference, Problem, ProblemKind, diff, from_resolved};
use hlrp_schema::{
    LerobotTrainConfig, PROJECT,
    plugin::{ARTIFACT_FIELD, FOLDER_FIELDS, FolderField, TEACHER_FIELD},
};
use hlrp_track::{
    RunDir,
    run::{Artifact, Manifest, RunInfo, RunStatus},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Where the training starts and where it writes.
pub(super) struct Plan {
    pub(super) run_dir: PathBuf,
    pub(super) output_dir: PathBuf,
    /// LeRobot's checkpoint that is continued.
    pub(super) checkpoint: Option<PathBuf>,
    /// The policy that a new training starts from.
    policy: Option<PathBuf>,
    pub(super) start_step: u64,
}

impl Plan {
    pub(super) fn new(options: &TrainOptions, composed: &Composed, config: &LerobotTrainConfig) -> Result<Self> {
        let Some(run_dir) = &options.resume else {
            let is_offline = needs(config).is_offline();
            let policy = config.lerobot.policy_path.as_deref();
            let policy = policy.map(|path| checkpoints::policy_folder("lerobot.policy_path", path, is_offline));
            return Ok(Self {
                run_dir: config.logging.run_dir.clone(),
                output_dir: config.lerobot.output_dir.clone(),
                checkpoint: None,
                policy: policy.transpose()?,
                start_step: 0,
            });
        };
        refuse_other_changes(run_dir, composed)?;
        let output_dir = checkpoints::output_dir(run_dir, &config.lerobot.output_dir);
        let checkpoint = last_checkpoint(&output_dir).ok_or_else(|| {
            let message = format!("{} contains no checkpoint to continue from", output_dir.display());
            CommandError::new(message, "start a new run")
        })?;
        let start_step = checkpoints::step(&checkpoint)?;
        refuse_done_steps(run_dir, config.lerobot.steps, start_step)?;
        Ok(Self { run_dir: run_dir.clone(), output_dir, checkpoint: Some(checkpoint), policy: None, start_step })
    }

    pub(super) fn invocation(&self, config: &LerobotTrainConfig) -> Invocation {
        let flags = match &self.checkpoint {
            Some(checkpoint) => {
                flags::resume(&config.lerobot, &checkpoints::pretrained_model(checkpoint), &self.output_dir)
            }
            None => flags::train(&config.lerobot, self.policy.as_deref()),
        };
        let one = needs(config).invocation(flags);
        match num_processes(config) {
            1 => one,
            several => in_parallel(config, one, several),
        }
    }

    pub(super) fn open(
        &self,
        config: &LerobotTrainConfig,
        composed: &Composed,
        versions: BTreeMap<String, String>,
    ) -> Result<RunDir> {
        let yaml = composed.to_yaml();
        let inputs = inputs(config, self.checkpoint.as_deref());
        let info = RunInfo {
            program: NAME,
            experiment: &config.experiment.name,
            description: &config.experiment.description,
            config_yaml: &yaml,
            overrides: composed.overrides(),
            versions,
            inputs,
            num_threads: config.num_threads.unwrap_or_else(hlrp_track::host::num_cores),
            metrics: metrics(),
            repository: Path::new("."),
        };
        Ok(match self.checkpoint {
            Some(_) => RunDir::resume(&self.run_dir, self.start_step, &info)?,
            None => RunDir::create(&self.run_dir, &info)?,
        })
    }
}

/// What the command needs of LeRobot.
pub(super) fn needs(config: &LerobotTrainConfig) -> Needs<'_> {
    let lerobot = &config.lerobot;
    Needs {
        section: "lerobot",
        command: &lerobot.command,
        python: lerobot.python.as_deref(),
        plugin: lerobot.install_policy_editable.as_deref(),
        env: &lerobot.env,
        num_threads: config.num_threads,
    }
}

/// As many processes as configured; else as the cluster has GPUs.
fn num_processes(config: &LerobotTrainConfig) -> u64 {
    let gpus = config.cluster.compute.gpus_per_node.unwrap_or(1).max(1);
    config.lerobot.num_processes.unwrap_or_else(|| gpus.into())
}

/// The same command in several processes.
fn in_parallel(config: &LerobotTrainConfig, one: Invocation, num_processes: u64) -> Invocation {
    let lerobot = &config.lerobot;
    let device = if lerobot.policy_device == "cpu" { "--cpu" } else { "--multi_gpu" };
    let mut arguments: Vec<String> = ["-m", "accelerate.commands.launch", device].map(str::to_owned).into();
    arguments.push(format!("--num_processes={num_processes}"));
    arguments.extend(["--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"].map(str::to_owned));
    arguments.extend(lerobot.accelerate_args.iter().cloned());
    arguments.push(one.program.display().to_string());
    arguments.extend(one.arguments);
    let found = Installation::find("lerobot", &lerobot.command, lerobot.python.as_deref());
    let program = found.map_or_else(|_| PathBuf::from("python"), |installation| installation.python);
    Invocation { program, arguments, ..one }
}

/// # Errors
/// The configuration differs from that of the run in what a continued training does not read.
fn refuse_other_changes(run_dir: &Path, composed: &Composed) -> Result<()> {
    let former = from_resolved(&PROJECT, &run_dir.join(CONFIG), &[])?;
    let differences = diff(&former, composed);
    let changes: Vec<String> = differences
        .iter()
        .filter(|difference| !flags::may_change_on_resume(&difference.key))
        .map(|Difference { key, left, right }| {
            let [was, is] = [left, right].map(|side| side.as_deref().unwrap_or("absent"));
            format!("{key} was {was}, is {is}")
        })
        .collect();
    if changes.is_empty() {
        return Ok(());
    }
    let hint = format!(
        "changeable {}; for anything else start a new run, from this one's policy with lerobot.policy_path=...",
        flags::changeable_on_resume()
    );
    let message = format!("a resumed training keeps the settings of its checkpoint: {}", changes.join("; "));
    Err(Problem::of(ProblemKind::Value, message).hint(hint).into())
}

/// A run that was killed after its last checkpoint has no step left, and is to be ended in order.
///
/// # Errors
/// There is no step to do.
fn refuse_done_steps(run_dir: &Path, steps: u64, start_step: u64) -> Result<()> {
    let is_finished = || {
        let last = Manifest::read(run_dir).ok().and_then(|manifest| manifest.sessions.into_iter().next_back());
        last.is_some_and(|session| session.status == RunStatus::Finished)
    };
    if steps > start_step || (steps == start_step && !is_finished()) {
        return Ok(());
    }
    let message = format!("{steps} leaves nothing to do: the last checkpoint is of step {start_step}");
    Err(Problem::new("lerobot.steps", message, format!("set it above {start_step} to train on")).into())
}

/// # Errors
/// A file that the policy needs is not there.
pub(super) fn refuse_missing_files_of_policy(config: &LerobotTrainConfig) -> Result<()> {
    FOLDER_FIELDS.into_iter().try_for_each(|FolderField { name, files }| {
        let path = config.lerobot.policy.get(name).and_then(serde_json::Value::as_str).map(Path::new);
        let key = format!("lerobot.policy.{name}");
        refuse_missing(&key, path)?;
        let has_one = |path: &Path| files.iter().any(|file| path.join(file).is_file());
        match path.zip(files.first()).filter(|(path, _)| !has_one(path)) {
            None => Ok(()),
            Some((path, file)) => {
                let message = format!("{} contains no {file}", path.display());
                let hint = format!("set {key} to the folder that contains it");
                Err(Problem::new(key, message, hint).into())
            }
        }
    })
}

/// A dry run may be for another machine, where the dataset is.
///
/// # Errors
/// The dataset's folder is not there.
pub(super) fn refuse_missing_dataset(config: &LerobotTrainConfig) -> Result<()> {
    refuse_missing("lerobot.dataset_root", config.lerobot.dataset_root.as_deref())
}

fn refuse_missing(key: &str, path: Option<&Path>) -> Result<()> {
    match path.filter(|path| !path.exists()) {
        None => Ok(()),
        Some(path) => Err(Problem::new(key, format!("{} does not exist", path.display()), format!("set {key}")).into()),
    }
}

/// What the run starts from.
fn inputs(config: &LerobotTrainConfig, checkpoint: Option<&Path>) -> Vec<Artifact> {
    let field = |field: &str| Some(PathBuf::from(config.lerobot.policy.get(field)?.as_str()?));
    let given = [
        ("resume", checkpoint.map(Path::to_path_buf)),
        ("policy_path", config.lerobot.policy_path.clone()),
        (ARTIFACT_FIELD, field(ARTIFACT_FIELD)),
        (TEACHER_FIELD, field(TEACHER_FIELD)),
    ];
    given
        .into_iter()
        .filter_map(|(role, path)| Some(Artifact { role: role.into(), path: path?, sha256: None }))
        .collect()
}
