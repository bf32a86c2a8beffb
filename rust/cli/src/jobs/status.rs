//! `hlrp jobs status`: how a job ended, by whoever still knows.

use super::{JobId, SlurmOptions, print_json, run_dir, unknown};
use anyhow::Result;
use clap::Args;
use hlrp_slurm::{
    client::{AccountingRow, Exit, JobDetails, Slurm, State},
    outcome::{FINAL, FinalState, SUBMIT_DIR, final_states, record_final_state},
};
use hlrp_track::{
    TrackError, console,
    run::{Manifest, RunStatus},
};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

const SOURCES: &str = "\
Columns: job, state, exit code:signal, partition, elapsed time; one line for each start of the job. Accounting (sacct) is asked
first, then the controller, which forgets a job some minutes after its end, then the run's own record in --run-dir. The final
state is kept in submit/final.json of the run's directory.";

/// Options of `hlrp jobs status`.
#[derive(Debug, Args)]
#[command(after_help = SOURCES)]
pub(crate) struct StatusOptions {
    /// Id; a member of an array is 4711_3.
    #[arg(value_name = "ID")]
    job: JobId,
    /// The run's directory; found by itself while the controller remembers the job.
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(super) slurm: SlurmOptions,
}

/// What is known about a job.
#[derive(Debug, Serialize)]
struct Status {
    job: String,
    /// Who says it: `sacct`, `scontrol`, `final.json` or `run.json`.
    source: &'static str,
    /// Oldest first.
    starts: Vec<Start>,
}

/// One start of the job, or of a member of an array.
#[derive(Debug, Serialize)]
struct Start {
    job: String,
    state: String,
    exit: Option<Exit>,
    partition: String,
    elapsed: String,
    run_dir: Option<PathBuf>,
    #[serde(skip)]
    last: Option<FinalState>,
}

pub(super) fn status(options: &StatusOptions) -> Result<()> {
    if let Some(dir) = &options.run_dir {
        check_run_dir(dir)?;
    }
    let slurm = options.slurm.slurm().on(options.job.cluster.as_deref());
    let status = find(&slurm, &options.job.id, options.run_dir.as_deref())?;
    record(&status);
    if options.slurm.json {
        return print_json(&status);
    }
    for start in &status.starts {
        let exit = start.exit.map_or_else(|| "-".to_owned(), |exit| exit.to_string());
        let line =
            format!("{:<14} {:<14} {exit:>8} {:<30} {:>12}", start.job, start.state, start.partition, start.elapsed);
        console::print(line.trim_end());
    }
    Ok(())
}

fn check_run_dir(dir: &Path) -> Result<(), TrackError> {
    if dir.join(SUBMIT_DIR).is_dir() || Manifest::path(dir).is_some() {
        return Ok(());
    }
    Err(TrackError::NotARun { path: dir.to_path_buf(), missing: format!("{SUBMIT_DIR}/ or run.json") })
}

/// Keeps how a job ended in its run's directory; the controller knows which that is for some minutes. What is not known is left out.
pub(crate) fn record_end(slurm: &Slurm, id: &str, run_dir: Option<&Path>) {
    match find(slurm, id, run_dir) {
        Ok(status) => record(&status),
        Err(error) => tracing::debug!("how job {id} ended is not known: {error:#}"),
    }
}

fn find(slurm: &Slurm, id: &str, of_run: Option<&Path>) -> Result<Status> {
    let is_recorded = of_run.is_some();
    let jobs = match slurm.details(id) {
        Err(error) if is_recorded => {
            tracing::warn!("{error}; reading the run's own record");
            Vec::new()
        }
        jobs => jobs?,
    };
    let rows = match slurm.history(id) {
        Err(error) if is_recorded || !jobs.is_empty() => {
            tracing::warn!("{error}");
            Vec::new()
        }
        rows => rows?.unwrap_or_default(),
    };
    let run_dirs: BTreeMap<String, PathBuf> = jobs
        .iter()
        .filter_map(|job| run_dir(job).transpose().map(|dir| dir.map(|dir| (job.id.clone(), dir))))
        .collect::<Result<_>>()?;
    let (source, starts) = if !rows.is_empty() {
        ("sacct", starts(rows, &jobs))
    } else if !jobs.is_empty() {
        ("scontrol", jobs.into_iter().map(Start::from).collect())
    } else {
        recorded(id, of_run)?
    };
    let found = |job: &str| of_run.map(Path::to_path_buf).or_else(|| run_dirs.get(job).cloned());
    let starts = starts.into_iter().map(|start| Start { run_dir: found(&start.job), ..start }).collect();
    Ok(Status { job: id.to_owned(), source, starts })
}

/// Every start that accounting has. It hears of an end a moment after the controller, which then says how the last one ended.
fn starts(rows: Vec<AccountingRow>, jobs: &[JobDetails]) -> Vec<Start> {
    let last: BTreeMap<String, usize> = rows.iter().enumerate().map(|(index, row)| (row.id.clone(), index)).collect();
    let mut starts = Vec::new();
    for (index, row) in rows.into_iter().enumerate() {
        let is_late = |job: &&JobDetails| job.id == row.id && job.state.is_over() && !row.state.is_over();
        let end = jobs.iter().find(is_late).filter(|_| last.get(&row.id) == Some(&index)).cloned();
        // The start after this one has no row yet.
        let is_earlier = row.state == State::Requeued;
        if end.is_none() || is_earlier {
            starts.push(Start::from(row));
        }
        starts.extend(end.map(Start::from));
    }
    starts
}

/// What the run itself has kept about the job.
fn recorded(id: &str, run_dir: Option<&Path>) -> Result<(&'static str, Vec<Start>)> {
    let run_dir = run_dir.ok_or_else(|| unknown(id))?;
    if let Some(last) = final_states(run_dir)?.remove(id) {
        return Ok((FINAL, vec![Start::new(id.to_owned(), last)]));
    }
    let sessions = match Manifest::path(run_dir) {
        Some(_) => Manifest::read(run_dir)?.sessions,
        None => Vec::new(),
    };
    let of_job = sessions.into_iter().filter(|session| session.slurm.as_ref().is_some_and(|job| job.id == id));
    let starts: Vec<Start> = of_job
        .map(|session| Start {
            job: id.to_owned(),
            state: match session.status {
                RunStatus::Running => "running or killed",
                RunStatus::Finished => "finished",
                RunStatus::Interrupted => "interrupted",
                RunStatus::Failed { .. } => "failed",
                RunStatus::Killed => "killed",
            }
            .to_owned(),
            exit: None,
            partition: session.slurm.and_then(|job| job.partition).unwrap_or_default(),
            elapsed: String::new(),
            run_dir: None,
            last: None,
        })
        .collect();
    if starts.is_empty() { Err(unknown(id).into()) } else { Ok(("run.json", starts)) }
}

/// Keeps the final states in the runs' directories.
fn record(status: &Status) {
    for (index, start) in status.starts.iter().enumerate() {
        // A start that another one followed is not the end of the job.
        if status.starts[index + 1..].iter().any(|later| later.job == start.job) {
            continue;
        }
        let run_dir = start.run_dir.as_deref().filter(|dir| check_run_dir(dir).is_ok());
        let Some((run_dir, last)) = run_dir.zip(start.last.as_ref()) else { continue };
        if let Err(error) = record_final_state(run_dir, &start.job, last) {
            tracing::warn!("the final state is not recorded: {error}");
        }
    }
}

impl Start {
    fn new(job: String, last: FinalState) -> Self {
        Self {
            job,
            state: last.state.to_string(),
            exit: last.exit,
            partition: last.partition.clone(),
            elapsed: last.elapsed.clone(),
            run_dir: None,
            last: Some(last).filter(|last| last.state.is_over()),
        }
    }
}

impl From<AccountingRow> for Start {
    fn from(row: AccountingRow) -> Self {
        let last = FinalState { state: row.state, exit: row.exit, partition: row.partition, elapsed: row.elapsed };
        Self::new(row.id, last)
    }
}

impl From<JobDetails> for Start {
    fn from(job: JobDetails) -> Self {
        let exit = job.exit.filter(|_| job.state.is_over());
        let last = FinalState { state: job.state, exit, partition: job.partition, elapsed: job.elapsed };
        Self::new(job.id, last)
    }
}
