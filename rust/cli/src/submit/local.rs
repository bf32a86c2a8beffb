//! The same plan without Slurm: on this machine, one run after the other.

use super::{plans::Submission, queue};
use crate::{
    HINTS,
    child::{self, Invocation},
    error::CommandError,
};
use anyhow::{Context, Result};
use hlrp_slurm::{plan::JobPlan, script::pre_commands};
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
            let code = execute(job, &signals)?;
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

/// Runs the commands of the user and the program in one shell, as a job does: what a command exports or loads, the program has.
fn execute(job: &JobPlan, signals: &StopSignals) -> Result<u8> {
    let (program, arguments) = match job.pre_commands.is_empty() {
        true => (job.program.clone(), job.start.clone()),
        false => {
            let script = pre_commands(&job.pre_commands, "exit") + "exec \"$@\"\n";
            let words = ["-c".to_owned(), script, "hlrp".to_owned(), job.program.display().to_string()];
            (PathBuf::from("bash"), words.into_iter().chain(job.start.iter().cloned()).collect())
        }
    };
    let name = program.display().to_string();
    let invocation = Invocation { program, arguments, env: BTreeMap::new(), knows_usr1: true };
    let ended = child::run(&invocation, signals, None).with_context(|| format!("cannot run {name}"))?;
    Ok(ended.code)
}
