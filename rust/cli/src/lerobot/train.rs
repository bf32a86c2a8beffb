//! `hlrp train-lerobot`: a run directory around `lerobot-train`.

use super::{
    checkpoints::{self, last_checkpoint},
    flags,
    options::TrainOptions,
    prepare::{self, Needs},
    training_log::TrainingLog,
};
use crate::{
    child::{self, EXIT_INTERRUPTED, Ended, Invocation, Signals, Tee},
    mistake::Mistake,
};
use anyhow::{Result, anyhow};
use hlrp_config::{Composed, schema::LerobotTrainConfig};
use hlrp_track::{
    RunDir, console,
    fs::ensure_free,
    metrics::{FILE_NAME as METRICS, MetricsWriter, read_metrics},
    plot::draw_metrics,
    run::{Artifact, RunInfo, RunStatus},
    table::ResultTable,
};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

const NAME: &str = "hlrp train-lerobot";
/// Fields of a policy that name files; those that are given must exist before anything starts.
const PATHS: [&str; 2] = ["stage2_artifact", "laq_checkpoint_path"];

/// Runs the command.
///
/// # Errors
/// A mistake in the configuration, or anything that keeps `lerobot-train` from starting. That it fails is no error here: its exit code
/// goes on.
pub(crate) fn train(options: &TrainOptions) -> Result<ExitCode> {
    let composed = options.compose()?;
    let config: LerobotTrainConfig = composed.extract_run()?;
    if options.common.print_config {
        console::print(&composed.to_yaml());
        return Ok(ExitCode::SUCCESS);
    }
    let plan = Plan::new(options, &config)?;
    if options.common.dry_run {
        console::print(&plan.invocation(&config).to_shell());
        return Ok(ExitCode::SUCCESS);
    }
    prepare::start(NAME, config.logging.level, config.cluster.login_nodes.as_deref(), &options.common)?;
    refuse_missing_files(&config)?;
    ensure_free(&plan.run_dir, 0, config.logging.min_free_gb)?;
    let signals = Signals::listen()?;
    let versions = needs(&config).prepare()?;
    let run_dir = plan.open(&config, &composed, versions)?;
    console::log_to(&run_dir.log_file())?;
    tracing::info!("run directory {}", run_dir.path().display());

    let writer = match plan.checkpoint {
        Some(_) => MetricsWriter::resume(run_dir.path(), plan.start_step)?,
        None => MetricsWriter::create(run_dir.path())?,
    };
    let mut log = TrainingLog::new(writer, plan.start_step, config.lerobot.log_freq);
    let tee = Tee::new(&run_dir.log_file(), Box::new(move |line| log.read(line)))?;
    let mut invocation = plan.invocation(&config);
    tracing::info!("{}", invocation.to_shell().replace(" \\\n ", ""));
    needs(&config).complete(&mut invocation, config.lerobot.env_type.as_deref(), run_dir.path())?;
    let ended = child::run(&invocation, &signals, Some(tee))?;
    finish(ended, run_dir, &plan.output_dir)
}

/// Where the training starts and where it writes.
struct Plan {
    run_dir: PathBuf,
    output_dir: PathBuf,
    /// LeRobot's checkpoint that is continued.
    checkpoint: Option<PathBuf>,
    /// The policy that a new training starts from.
    policy: Option<PathBuf>,
    start_step: u64,
}

impl Plan {
    fn new(options: &TrainOptions, config: &LerobotTrainConfig) -> Result<Self> {
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
        refuse_other_changes(options.overrides())?;
        let output_dir = checkpoints::output_dir(run_dir, &config.lerobot.output_dir);
        let checkpoint = last_checkpoint(&output_dir).ok_or_else(|| {
            anyhow!("{} holds no checkpoint to continue from\nhint: start a new run", output_dir.display())
        })?;
        let start_step = checkpoints::step(&checkpoint)?;
        Ok(Self { run_dir: run_dir.clone(), output_dir, checkpoint: Some(checkpoint), policy: None, start_step })
    }

    fn invocation(&self, config: &LerobotTrainConfig) -> Invocation {
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

    fn open(&self, config: &LerobotTrainConfig, composed: &Composed, versions: Versions) -> Result<RunDir> {
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
            num_threads: config.num_threads.unwrap_or_else(all_cores),
            repository: Path::new("."),
        };
        Ok(match self.checkpoint {
            Some(_) => RunDir::resume(&self.run_dir, self.start_step, &info)?,
            None => RunDir::create(&self.run_dir, &info)?,
        })
    }
}

type Versions = std::collections::BTreeMap<String, String>;

fn needs(config: &LerobotTrainConfig) -> Needs<'_> {
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

/// Number of CPU cores.
pub(crate) fn all_cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
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
    let found = super::installation::Installation::find("lerobot", &lerobot.command, lerobot.python.as_deref());
    let program = found.map_or_else(|_| PathBuf::from("python"), |installation| installation.python);
    Invocation { program, arguments, ..one }
}

/// # Errors
/// A word changes what the checkpoint has fixed.
fn refuse_other_changes(overrides: &[String]) -> Result<()> {
    let key = |word: &str| word.trim_start_matches(['+', '~']).split('=').next().unwrap_or_default().to_owned();
    let may_change = |key: &str| {
        let field = key.strip_prefix("lerobot.").map(|rest| rest.split('.').next().unwrap_or_default());
        field.is_none_or(|field| flags::CHANGEABLE_ON_RESUME.contains(&field))
    };
    match overrides.iter().map(|word| key(word)).find(|key| !may_change(key)) {
        None => Ok(()),
        Some(key) => {
            let hint = format!(
                "changeable below lerobot: {}; for another {key} start a new run from this one's policy with \
                 lerobot.policy_path=...",
                flags::CHANGEABLE_ON_RESUME.join(", ")
            );
            Err(Mistake::new(format!("a continued training keeps {key} of its checkpoint"), hint).into())
        }
    }
}

/// # Errors
/// The dataset's folder or a file that the policy needs is not there.
fn refuse_missing_files(config: &LerobotTrainConfig) -> Result<()> {
    let lerobot = &config.lerobot;
    let of_policy = PATHS.into_iter().filter_map(|field| {
        Some((format!("lerobot.policy.{field}"), PathBuf::from(lerobot.policy.get(field)?.as_str()?)))
    });
    let root = lerobot.dataset_root.clone().map(|root| ("lerobot.dataset_root".to_owned(), root));
    match of_policy.chain(root).find(|(_, path)| !path.exists()) {
        None => Ok(()),
        Some((key, path)) => {
            Err(Mistake::new(format!("{key}: {} does not exist", path.display()), format!("set {key}")).into())
        }
    }
}

/// What the run starts from.
fn inputs(config: &LerobotTrainConfig, checkpoint: Option<&Path>) -> Vec<Artifact> {
    let field = |field: &str| Some(PathBuf::from(config.lerobot.policy.get(field)?.as_str()?));
    let given = [
        ("resume", checkpoint.map(Path::to_path_buf)),
        ("policy_path", config.lerobot.policy_path.clone()),
        ("stage2_artifact", field("stage2_artifact")),
        ("laq_checkpoint_path", field("laq_checkpoint_path")),
    ];
    given
        .into_iter()
        .filter_map(|(role, path)| Some(Artifact { role: role.into(), path: path?, sha256: None }))
        .collect()
}

/// Records how the run ended, draws its curve and prints its table.
fn finish(ended: Ended, run_dir: RunDir, output_dir: &Path) -> Result<ExitCode> {
    let path = run_dir.path().to_owned();
    let checkpoint = last_checkpoint(output_dir);
    let rows = read_metrics(&path.join(METRICS))?;
    let picture = run_dir.plots().join("loss.png");
    let names = ["train/loss", "val/loss"];
    let is_drawn = draw_metrics(&picture, &rows, &names, "Loss of the policy", "loss", true)?;
    let mut table = ResultTable::new(["result", "value"]);
    if let Some((row, loss)) = rows.iter().rev().find_map(|row| Some((row, row.get("train/loss")?))) {
        table = table.row(["steps", &row.step.to_string()]).row(["training loss", &format!("{loss:.4}")]);
    }
    if is_drawn {
        table = table.row(["picture", &picture.display().to_string()]);
    }
    if let Some(checkpoint) = &checkpoint {
        table = table.row(["policy", &checkpoints::pretrained_model(checkpoint).display().to_string()]);
    }
    table = table.row(["run directory", &path.display().to_string()]);

    let is_finished = ended.code == 0 && !ended.is_interrupted;
    let can_continue = ended.is_interrupted && checkpoint.is_some();
    let status = match ended {
        _ if is_finished => RunStatus::Finished,
        _ if can_continue => RunStatus::Interrupted,
        _ if ended.is_interrupted => {
            RunStatus::Failed { reason: "stopped by a signal before the first checkpoint".into() }
        }
        Ended { code, .. } => RunStatus::Failed { reason: format!("lerobot-train ended with exit code {code}") },
    };
    run_dir.finish(status)?;
    if is_finished || ended.is_interrupted {
        console::print(&table.to_text());
    }
    if can_continue {
        console::print(&format!("\ninterrupted; continue with: {NAME} --resume {}", path.display()));
        return Ok(ExitCode::from(EXIT_INTERRUPTED));
    }
    if !is_finished {
        return failed("lerobot-train", ended, &path);
    }
    Ok(ExitCode::SUCCESS)
}

/// Says that LeRobot failed, and passes its exit code on.
pub(super) fn failed(program: &str, ended: Ended, run_dir: &Path) -> Result<ExitCode> {
    let log = run_dir.join("unified.log");
    let mut text = match ended.is_interrupted {
        true => format!("{program} was stopped by a signal; there is no checkpoint to continue from"),
        false => format!("{program} ended with exit code {}", ended.code),
    };
    let logged = std::fs::read_to_string(&log).unwrap_or_default();
    if let Some(line) = logged.lines().find(|line| line.contains("Could not import third-party plugin")) {
        text.push_str(&format!("\nhint: LeRobot could not use the policy plugin ({})", line.trim()));
    }
    text.push_str(&format!("\nhint: its last lines above and in {} say why", log.display()));
    console::report_error(anyhow!(text).as_ref());
    Ok(ExitCode::from(if ended.code == 0 { EXIT_INTERRUPTED } else { ended.code }))
}
