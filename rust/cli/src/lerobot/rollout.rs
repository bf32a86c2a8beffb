//! `hlrp rollout-lerobot`: a run directory around `lerobot-eval`, and a table of what it found.

use super::{
    checkpoints, evaluation,
    failure::{failed, length},
    flags,
    inherit::Simulator,
    options::RolloutOptions,
    prepare::{self, Needs},
};
use crate::{
    child::{self, Ended, Tee},
    disk::disk_rules,
};
use anyhow::Result;
use hlrp_config::Composed;
use hlrp_schema::{RolloutConfig, SinksConfig, StageConfig};
use hlrp_track::{
    RunDir, console,
    fs::ensure_free,
    run::{Artifact, RunInfo, RunStatus},
    signals::StopSignals,
    sinks::{SinkSetup, Sinks, wandb::Settings},
};
use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

const NAME: &str = "hlrp rollout-lerobot";

/// Most videos that LeRobot renders of a task.
const MAX_VIDEOS: u64 = 10;
/// Space for one of them.
const VIDEO_BYTES: u64 = 16 << 20;

/// Runs the command.
///
/// # Errors
/// An invalid setting, or anything that keeps `lerobot-eval` from starting. Its failure is not an error here: its exit code is
/// passed on.
pub(crate) fn rollout(options: &RolloutOptions) -> Result<ExitCode> {
    let composed = options.config.compose()?;
    let config: RolloutConfig = RolloutConfig::of_run(&composed)?;
    if options.common.print_config {
        console::print(&composed.to_yaml());
        return Ok(ExitCode::SUCCESS);
    }
    let policy = policy(&config)?;
    let simulator = Simulator::of(&config.lerobot_eval, &policy)?;
    let step = checkpoints::step_of_policy(&policy);
    let mut invocation = needs(&config).invocation(flags::eval(&config.lerobot_eval, &policy, &simulator));
    if options.common.dry_run {
        console::print(&invocation.to_shell());
        return Ok(ExitCode::SUCCESS);
    }
    prepare::start(NAME, config.logging.level, config.cluster.login_nodes.as_deref(), &options.common)?;
    let videos = MAX_VIDEOS.min(config.lerobot_eval.eval_n_episodes) * VIDEO_BYTES;
    for folder in [&config.logging.run_dir, &config.lerobot_eval.output_dir] {
        ensure_free(folder, videos, &disk_rules(&config.cluster, &config.logging))?;
    }
    let signals = StopSignals::listen()?;
    let wandb = match config.logging.use_wandb {
        true => Settings::of_run(&config.logging.wandb, None)?,
        false => None,
    };
    let versions = needs(&config).prepare()?;
    let run_dir = open(&config, &composed, policy, versions)?;
    console::log_to(&run_dir.log_file())?;
    tracing::info!("run directory {}", run_dir.path().display());
    if !simulator.inherited.is_empty() {
        tracing::info!("as in the policy's training: {}", simulator.inherited.join(", "));
    }
    let setup = SinkSetup { wandb: wandb.as_ref(), stop: Some(&signals), ..SinkSetup::new(run_dir.path(), 0, step) };
    // LeRobot's own lines are on the console already.
    let sinks = Sinks::open(&setup, &SinksConfig { console: false, ..config.logging.sinks.clone() })?;
    tracing::info!("{}", invocation.to_shell().replace(" \\\n ", ""));
    needs(&config).complete(&mut invocation, Some(&simulator.kind), run_dir.path())?;
    let tee = Tee::new(&run_dir.log_file(), Box::new(|_| {}))?;
    let log_start = length(&run_dir.log_file());
    let ended = child::run(&invocation, &signals, Some(tee))?;
    finish(ended, run_dir, sinks, &config, log_start, step)
}

/// Folder of the policy, or its name on the Hub.
fn policy(config: &RolloutConfig) -> Result<PathBuf> {
    let path = config.lerobot_eval.policy_path.clone().unwrap_or_default(); // checked with the configuration
    checkpoints::policy_folder("lerobot_eval.policy_path", &path, needs(config).is_offline())
}

/// What the command needs of LeRobot.
pub(super) fn needs(config: &RolloutConfig) -> Needs<'_> {
    let eval = &config.lerobot_eval;
    Needs {
        section: "lerobot_eval",
        command: &eval.command,
        python: eval.python.as_deref(),
        plugin: eval.install_policy_editable.as_deref(),
        env: &eval.env,
        num_threads: config.num_threads,
    }
}

fn open(
    config: &RolloutConfig,
    composed: &Composed,
    policy: PathBuf,
    versions: BTreeMap<String, String>,
) -> Result<RunDir> {
    let yaml = composed.to_yaml();
    let info = RunInfo {
        description: &config.experiment.description,
        overrides: composed.overrides(),
        versions,
        inputs: vec![Artifact::of("policy_path", policy)],
        num_threads: config.num_threads.unwrap_or_else(hlrp_track::host::num_cores),
        metrics: evaluation::metrics(),
        ..RunInfo::new(NAME, &config.experiment.name, &yaml)
    };
    Ok(RunDir::create(&config.logging.run_dir, &info)?)
}

/// Records how the run ended, and prints the table.
fn finish(
    ended: Ended,
    run_dir: RunDir,
    mut sinks: Sinks,
    config: &RolloutConfig,
    log_start: usize,
    step: u64,
) -> Result<ExitCode> {
    let path = run_dir.path().to_owned();
    if ended.code != 0 || ended.is_interrupted {
        let reason = match ended.is_interrupted {
            true => "stopped by a signal".to_owned(),
            false => format!("lerobot-eval ended with exit code {}", ended.code),
        };
        let status = RunStatus::Failed { reason, exit_code: Some(ended.code) };
        sinks.finish(status.clone())?;
        run_dir.finish(status)?;
        return failed("lerobot-eval", ended, &path, log_start);
    }
    let results = evaluation::read_eval_info(&config.lerobot_eval.output_dir)?;
    evaluation::write_results(&path, &results)?;
    sinks.scalars(step, evaluation::scalars(&results))?;
    sinks.finish(RunStatus::Finished)?;
    run_dir.finish(RunStatus::Finished)?;
    console::print(&evaluation::table(&results).to_text());
    console::print(&format!("\nrun directory {}", path.display()));
    Ok(ExitCode::SUCCESS)
}
