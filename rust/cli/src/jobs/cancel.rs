//! `hlrp jobs cancel`: only jobs that hlrp submitted for this user.

use super::{JobId, SlurmOptions, details, print_json, run_dir, unknown};
use crate::error::CommandError;
use anyhow::{Result, bail};
use clap::Args;
use hlrp_slurm::{
    client::{Job, JobDetails, Slurm},
    outcome::{COMMENT_PREFIX, record_cancellation, set_cancellation_aside},
    plan::JobPlan,
};
use hlrp_track::{console, host::hostname};
use serde::Serialize;
use std::{
    io::{IsTerminal, Write, stderr, stdin},
    path::{Path, PathBuf},
};

const RECORD: &str = "\
A run whose job is cancelled is not queued again: submit/cancelled.json in its directory says so. Cancelling a waiting job of a
race leaves the run to the other jobs.";

/// Options of `hlrp jobs cancel`.
#[derive(Debug, Args)]
#[command(after_help = RECORD)]
pub(crate) struct CancelOptions {
    /// Ids; 4711_3 is a member of an array, 4711 all of it.
    #[arg(value_name = "ID", required = true)]
    jobs: Vec<JobId>,
    #[command(flatten)]
    pub(super) slurm: SlurmOptions,
}

/// A job that is going to be cancelled.
struct Candidate {
    slurm: Slurm,
    id: String,
    /// Its entries: one, or the members of an array.
    entries: Vec<JobDetails>,
}

/// Comment and id of a job: where a site has several Slurms, the comment says which.
type Place = (String, String);

/// What became of it.
#[derive(Debug, Serialize)]
struct Cancelled {
    job: String,
    /// Its state before.
    state: String,
    /// Whether it was cancelled; false if it was over already.
    cancelled: bool,
    run_dirs: Vec<PathBuf>,
}

pub(super) fn cancel(options: &CancelOptions) -> Result<()> {
    // Nothing is cancelled unless all of it may be.
    let candidates = options.jobs.iter().map(|job| Candidate::find(options, job)).collect::<Result<Vec<_>>>()?;
    let (over, alive): (Vec<_>, Vec<_>) = candidates.into_iter().partition(Candidate::is_over);
    if !alive.is_empty() && !options.slurm.remote.yes {
        ask(&alive)?;
    }
    let cancelled: Vec<Place> = alive.iter().flat_map(Candidate::places).collect();
    let mut report = over.iter().map(|job| job.report(false)).collect::<Result<Vec<_>>>()?;
    for job in &alive {
        // Before it ends: its script looks for the note.
        let noted = job.record(&cancelled)?;
        if let Err(error) = job.slurm.cancel(&job.id) {
            noted.iter().try_for_each(|run_dir| set_cancellation_aside(run_dir).map(drop))?;
            return Err(error.into());
        }
        report.push(job.report(true)?);
    }
    if options.slurm.json {
        return print_json(&report);
    }
    for job in report {
        match job.cancelled {
            true => console::print(&format!("cancelled job {}", job.job)),
            false => console::print(&format!("job {} is over already: {}", job.job, job.state)),
        }
    }
    Ok(())
}

fn ask(jobs: &[Candidate]) -> Result<()> {
    if !stdin().is_terminal() {
        let message = format!("nobody to ask whether to cancel {}", names(jobs));
        return Err(CommandError::new(message, "--yes cancels without asking").into());
    }
    let mut err = stderr().lock();
    for job in jobs {
        writeln!(err, "{}", job.describe())?;
    }
    write!(err, "cancel {}? [y/N] ", names(jobs))?;
    err.flush()?;
    let mut answer = String::new();
    stdin().read_line(&mut answer)?;
    if ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) {
        return Ok(());
    }
    bail!("nothing was cancelled");
}

fn names(jobs: &[Candidate]) -> String {
    let ids: Vec<&str> = jobs.iter().map(|job| job.id.as_str()).collect();
    format!("{} {}", if ids.len() == 1 { "job" } else { "jobs" }, ids.join(", "))
}

impl Candidate {
    /// # Errors
    /// Slurm does not know the job, another user has it, or hlrp did not submit it.
    fn find(options: &CancelOptions, job: &JobId) -> Result<Self> {
        let (slurm, entries) = details(&options.slurm, job)?;
        if entries.is_empty() {
            return Err(unknown(&job.id).into());
        }
        let me = rustix::process::getuid().as_raw();
        for entry in &entries {
            if uid(&entry.user) != Some(me) {
                let hint = "only your own jobs can be cancelled";
                return Err(CommandError::new(format!("job {} belongs to {}", entry.id, entry.user), hint).into());
            }
            if !entry.comment.starts_with(COMMENT_PREFIX) {
                let message = format!("job {} ({}) was not submitted by hlrp", entry.id, entry.name);
                return Err(CommandError::new(message, format!("if it has to go: scancel {}", job.id)).into());
            }
        }
        Ok(Self { slurm, id: job.id.clone(), entries })
    }

    fn is_over(&self) -> bool {
        self.entries.iter().all(|job| job.state.is_over())
    }

    fn places(&self) -> impl Iterator<Item = Place> {
        self.entries.iter().map(|job| (job.comment.clone(), job.id.clone()))
    }

    fn describe(&self) -> String {
        let entries = self.entries.iter().filter(|job| !job.state.is_over());
        let lines: Vec<String> = entries
            .map(|job| {
                let place = if job.nodes.is_empty() { &job.reason } else { &job.nodes };
                format!(
                    "job {} ({}, {}): {} ({place}), {} elapsed",
                    job.id, job.name, job.partition, job.state, job.elapsed
                )
            })
            .collect();
        lines.join("\n")
    }

    /// Notes in the runs' directories that they are cancelled, and returns those; `cancelled` are all jobs that this command cancels.
    fn record(&self, cancelled: &[Place]) -> Result<Vec<PathBuf>> {
        let mut noted = Vec::new();
        for job in self.entries.iter().filter(|job| !job.state.is_over()) {
            let Some(run_dir) = run_dir(job)?.filter(|dir| dir.is_dir()) else { continue };
            if job.state.is_waiting() && self.has_rival(job, &run_dir, cancelled) {
                continue;
            }
            let user = job.user.split('(').next().unwrap_or_default();
            record_cancellation(&run_dir, &job.id, &format!("{user}@{}", hostname()))?;
            noted.push(run_dir);
        }
        Ok(noted)
    }

    /// Whether another job of the same run stays in a queue, on any cluster of its race.
    fn has_rival(&self, job: &JobDetails, run_dir: &Path, cancelled: &[Place]) -> bool {
        // The other members of an array have the same comment, but runs of their own.
        if job.id.contains('_') {
            return false;
        }
        let Some(token) = job.comment.split_whitespace().next() else { return false };
        let stays = |other: &Job| {
            let place = (other.comment.clone(), other.id.clone());
            !other.state.is_over() && !cancelled.contains(&place) && place != (job.comment.clone(), job.id.clone())
        };
        let race = JobPlan::of_comment(run_dir, &job.comment).map(|plan| plan.race).unwrap_or_default();
        let slurms = race.iter().map(|rival| self.slurm.on(rival.clusters.as_deref())).chain([self.slurm.clone()]);
        // A Slurm that does not answer has no job that could be counted on.
        slurms.into_iter().any(|slurm| slurm.find_by_comment(token).unwrap_or_default().iter().any(stays))
    }

    fn report(&self, cancelled: bool) -> Result<Cancelled> {
        let states: Vec<&str> = self.entries.iter().map(|job| job.state.name()).collect();
        let first = states.first().copied().unwrap_or_default();
        let state = if states.iter().all(|state| *state == first) { first.to_owned() } else { states.join(",") };
        let run_dirs = self.entries.iter().filter_map(|job| run_dir(job).transpose()).collect::<Result<_>>()?;
        Ok(Cancelled { job: self.id.clone(), state, cancelled, run_dirs })
    }
}

/// The number in `name(uid)`.
fn uid(user: &str) -> Option<u32> {
    user.rsplit_once('(')?.1.strip_suffix(')')?.parse().ok()
}
