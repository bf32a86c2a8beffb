//! `hlrp train-lerobot`: a run directory around `lerobot-train`.

use super::{
    checkpoints::{self, last_checkpoint},
    failure::{failed, length},
    launch::needs,
    options::TrainOptions,
    preflight::{refuse_missing_dataset, refuse_missing_files_of_policy},
    prepare,
    start::{NAME, Start},
    training_log::{TrainingLog, metrics},
    wandb::{self, Recording},
};
use crate::{
    child::{self, Ended, Tee},
    disk::disk_rules,
};
use anyhow::Result;
use hlrp_schema::StageConfig;
use hlrp_schema::{LerobotTrainConfig, SinksConfig};
use hlrp_track::{
    RunDir, console, exit_code,
    fs::ensure_free,
    metrics::{FILE_NAME as METRICS, read_metrics},
    plot::draw_metrics,
    run::{Artifact, RunStatus},
    signals::StopSignals,
    sinks::{SinkSetup, Sinks},
    table::ResultTable,
};
use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

/// Runs the command.
///
/// # Errors
/// An invalid setting, or anything that keeps `lerobot-train` from starting. Its failure is not an error here: its exit code is
/// passed on.
pub(crate) fn train(options: &TrainOptions) -> Result<ExitCode> {
    let composed = options.compose()?;
    let config: LerobotTrainConfig = LerobotTrainConfig::of_run(&composed)?;
    if options.common.print_config {
        console::print(&composed.to_yaml());
        return Ok(ExitCode::SUCCESS);
    }
    let start = Start::new(options, &composed, &config)?;
    refuse_missing_files_of_policy(&config)?;
    if options.common.dry_run {
        console::print(&start.invocation(&config).to_shell());
        return Ok(ExitCode::SUCCESS);
    }
    prepare::start(NAME, config.logging.level, config.cluster.login_nodes.as_deref(), &options.common)?;
    refuse_missing_dataset(&config)?;
    for folder in [&start.run_dir, &start.output_dir] {
        ensure_free(folder, 0, &disk_rules(&config.cluster, &config.logging))?;
    }
    let signals = StopSignals::listen()?;
    let recording = Recording::of(&config, options.resume.as_deref())?;
    let versions = needs(&config).prepare()?;
    let mut run_dir = start.open(&config, &composed, versions)?;
    console::log_to(&run_dir.log_file())?;
    tracing::info!("run directory {}", run_dir.path().display());

    // LeRobot's own lines are on the console already.
    let sinks = SinksConfig { console: false, ..config.logging.sinks.clone() };
    let (wandb, stop) = (recording.of_sink(), Some(&signals));
    let setup = SinkSetup { wandb, stop, ..SinkSetup::new(run_dir.path(), start.start_step, config.lerobot.steps) };
    let sinks = Sinks::open(&setup, &sinks)?;
    let log = Arc::new(Mutex::new(TrainingLog::new(sinks, start.start_step, config.lerobot.log_freq)));
    let reader = Arc::clone(&log);
    let on_line = move |line: &str| reader.lock().unwrap_or_else(PoisonError::into_inner).read(line);
    let tee = Tee::new(&run_dir.log_file(), Box::new(on_line))?;
    let mut invocation = start.invocation(&config);
    recording.instruct(&mut invocation, &mut run_dir, start.checkpoint.is_some())?;
    let records = wandb::records(&start.output_dir);
    tracing::info!("{}", invocation.to_shell().replace(" \\\n ", ""));
    needs(&config).complete(&mut invocation, config.lerobot.env_type.as_deref(), run_dir.path())?;
    let log_start = length(&run_dir.log_file());
    let ended = child::run(&invocation, &signals, Some(tee))?;
    let checkpoint = last_checkpoint(&start.output_dir);
    let status = status_of(ended, checkpoint.is_some());
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    log.finish(status.clone())?;
    wandb::link(&mut run_dir, log.page(), &start.output_dir, &records);
    finish(ended, status, run_dir, checkpoint, log_start)
}

/// How the run ended.
fn status_of(ended: Ended, has_checkpoint: bool) -> RunStatus {
    match ended {
        Ended { code: 0, is_interrupted: false } => RunStatus::Finished,
        Ended { is_interrupted: true, .. } if has_checkpoint => RunStatus::Interrupted,
        Ended { is_interrupted: true, code } => {
            let reason = "stopped by a signal before the first checkpoint".into();
            RunStatus::Failed { reason, exit_code: Some(code) }
        }
        Ended { code, .. } => {
            let reason = format!("lerobot-train ended with exit code {code}");
            RunStatus::Failed { reason, exit_code: Some(code) }
        }
    }
}

/// Records how the run ended, draws its curve and prints its table.
fn finish(
    ended: Ended,
    status: RunStatus,
    mut run_dir: RunDir,
    checkpoint: Option<PathBuf>,
    log_start: usize,
) -> Result<ExitCode> {
    let path = run_dir.path().to_owned();
    let rows = read_metrics(&path.join(METRICS))?;
    let curves = draw_metrics(&run_dir.plots(), &rows, &metrics())?;
    let mut table = ResultTable::new(["result", "value"]);
    if let Some((row, loss)) = rows.iter().rev().find_map(|row| Some((row, row.get("train/loss")?))) {
        table = table.row(["training loss", &format!("{loss:.4} at step {}", row.step)]);
    }
    for curve in curves {
        table = table.row(["image", &curve.display().to_string()]);
    }
    if let Some(checkpoint) = &checkpoint {
        table = table.row(["policy", &checkpoints::pretrained_model(checkpoint).display().to_string()]);
    }
    table = table.row(["run directory", &path.display().to_string()]);

    if let Some(checkpoint) = &checkpoint {
        run_dir.add_output(Artifact::of("policy", checkpoints::pretrained_model(checkpoint)));
    }
    let is_finished = status == RunStatus::Finished;
    let can_continue = status == RunStatus::Interrupted;
    run_dir.finish(status)?;
    if is_finished || ended.is_interrupted {
        console::print(&table.to_text());
    }
    if can_continue {
        console::print(&format!("\ninterrupted; continue with: {NAME} --resume {}", path.display()));
        return Ok(ExitCode::from(exit_code::INTERRUPTED));
    }
    if !is_finished {
        return failed("lerobot-train", ended, &path, log_start);
    }
    Ok(ExitCode::SUCCESS)
}
