//! The same plan without Slurm: on this machine, one run after the other.

use super::{plans::Submission, queue};
use crate::{
    HINTS,
    child::{self, Invocation},
    error::CommandError,
};
use anyhow::{Context, Result};
use hlrp_slurm::plan::JobPlan;
use hlrp_track::{console, signals::StopSignals};
use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

/// Runs everything; the first failure ends it.
///
/// # Errors
/// A program cannot be started. Its failure is not an error here: its exit code is passed on.
pub(super) fn run(submission: &Submission) -> Result<ExitCode> {
    let signals = StopSignals::listen()?;
    let num_runs = submission.runs.len();
    for (index, run) in submission.runs.iter().enumerate() {
        queue::write(submission, run)?;
        for job in run.jobs.iter().flatten() {
            tracing::info!("run {} of {num_runs}: {}", index + 1, job.job_name);
            let code = pre_commands(job, &signals)?;
            let code = if code == 0 { execute(job.program.clone(), job.start.clone(), &signals)? } else { code };
            if code != 0 {
                let rest = num_runs - index - 1;
                let message = format!("{} ended with exit code {code}; {rest} runs were not started", job.job_name);
                let hint = format!("see {}", job.run_dir.join("unified.log").display());
                console::report_error(&CommandError::new(message, hint), HINTS);
                return Ok(ExitCode::from(code));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn pre_commands(job: &JobPlan, signals: &StopSignals) -> Result<u8> {
    for command in &job.pre_commands {
        tracing::info!("[pre_command] {command}");
        let code = execute(PathBuf::from("bash"), vec!["-c".to_owned(), command.clone()], signals)?;
        if code != 0 {
            return Ok(code);
        }
    }
    Ok(0)
}

fn execute(program: PathBuf, arguments: Vec<String>, signals: &StopSignals) -> Result<u8> {
    let name = program.display().to_string();
    let invocation = Invocation { program, arguments, env: BTreeMap::new(), knows_usr1: true };
    let ended = child::run(&invocation, signals, None).with_context(|| format!("cannot run {name}"))?;
    Ok(ended.code)
}
