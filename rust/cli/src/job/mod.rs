//! `hlrp job`: what batch scripts call on their node. Not for people; `hlrp submit` writes those scripts.

mod gate;
mod preflight;
mod report;

use crate::{
    child::{self, Invocation},
    env,
    error::CommandError,
    pipeline,
};
use anyhow::{Context, Result};
use clap::Subcommand;
use hlrp_schema::ConfigArgs;
use hlrp_slurm::{
    SubmitError,
    in_job::{self, Decision, Progress},
    plan::JobPlan,
};
use hlrp_track::{
    console,
    run::{Manifest, RunStatus},
    signals::StopSignals,
};
use std::{collections::BTreeMap, fs, path::Path, path::PathBuf, process::ExitCode};
use tracing::level_filters::LevelFilter;

/// What batch scripts call on their node.
#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// Claim the run, cancel its siblings that still wait, and print what to do: start, resume or nothing.
    Begin {
        /// The plan beside the script.
        plan: PathBuf,
    },
    /// Run hlrp with these arguments, pass signals on to it, and record its exit code.
    Step {
        /// The plan beside the script.
        plan: PathBuf,
        /// Arguments of hlrp.
        #[arg(last = true, required = true)]
        arguments: Vec<String>,
    },
    /// Check the node before the run of a plan, whose configuration the arguments compose.
    Preflight {
        /// The plan beside the script.
        plan: PathBuf,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Report what the jobs of `hlrp submit acceptance` found.
    Report {
        /// The plan beside the script.
        plan: PathBuf,
    },
    /// Record how the step ended, and queue the run again if it was interrupted.
    End {
        /// The plan beside the script.
        plan: PathBuf,
        /// What srun ended with.
        code: u8,
    },
}

/// Runs the command.
///
/// # Errors
/// A damaged plan or record, or what keeps the program from starting.
pub(crate) fn run(command: &JobCommand) -> Result<ExitCode> {
    console::init(LevelFilter::INFO, 0)?;
    match command {
        JobCommand::Begin { plan } => begin(&JobPlan::read(plan)?),
        JobCommand::Step { plan, arguments } => step(&JobPlan::read(plan)?, arguments),
        JobCommand::Preflight { plan, config } => preflight::run(&JobPlan::read(plan)?, config),
        JobCommand::Report { plan } => report::run(&JobPlan::read(plan)?),
        JobCommand::End { plan, code } => {
            Ok(ExitCode::from(in_job::end(&JobPlan::read(plan)?, &in_job::this_job()?, *code)?))
        }
    }
}

fn begin(plan: &JobPlan) -> Result<ExitCode> {
    let me = in_job::this_job()?;
    let decision = match gate::ask(plan)? {
        gate::Gate::Open => in_job::begin(plan, &me, || progress(plan))?,
        gate::Gate::Closed(reason) => {
            return Err(CommandError::new(reason, "see the output of that step's job").into());
        }
        gate::Gate::Later(reason) => Decision::Nothing(reason),
    };
    if let Decision::Nothing(reason) = &decision {
        tracing::info!("{reason}: nothing to do for job {}", me.job);
    }
    console::print(decision.word());
    Ok(ExitCode::SUCCESS)
}

/// How far the run of a plan has come.
fn progress(plan: &JobPlan) -> Result<Progress, SubmitError> {
    if let Some(step) = &plan.step {
        // The pipeline itself starts or continues the step.
        let is_done = pipeline::is_done(&plan.run_dir, step);
        return Ok(if is_done { Progress::Finished } else { Progress::New });
    }
    if Manifest::path(&plan.run_dir).is_none() {
        return Ok(Progress::New);
    }
    let manifest = Manifest::read(&plan.run_dir)?;
    Ok(match manifest.sessions.last().map(|session| &session.status) {
        Some(RunStatus::Finished) => Progress::Finished,
        _ if pipeline::can_continue(plan.stage, &plan.run_dir) => Progress::Resumable,
        _ => Progress::WithoutCheckpoint,
    })
}

fn step(plan: &JobPlan, arguments: &[String]) -> Result<ExitCode> {
    let me = in_job::this_job()?;
    if let Some(folder) = std::env::var_os(env::TMPDIR) {
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", Path::new(&folder).display()))?;
    }
    let signals = StopSignals::listen()?;
    let program = std::env::current_exe().context("cannot find the path of hlrp")?;
    let invocation = Invocation { program, arguments: arguments.to_vec(), env: BTreeMap::new(), knows_usr1: true };
    in_job::note_start(plan, &me)?;
    let ended = child::run(&invocation, &signals, None)?;
    in_job::note_exit(plan, &me, ended.code)?;
    Ok(ExitCode::from(ended.code))
}
