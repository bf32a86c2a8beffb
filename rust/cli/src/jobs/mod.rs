//! `hlrp jobs`: what the queue holds, how a job is doing, and how it ended.

mod cancel;
mod logs;
mod status;
mod table;
mod tail;
mod watch;

pub(crate) use status::record_end;

use crate::{error::CommandError, remote::RemoteArgs};
use anyhow::Result;
use clap::{Args, Subcommand};
use hlrp_schema::{ConfigArgs, PRIMARY};
use hlrp_slurm::{
    client::{JobDetails, Slurm, SlurmError, check_id},
    outcome::{COMMENT_PREFIX, SUBMIT_DIR},
    submission,
};
use hlrp_track::console;
use serde::Serialize;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
    time::Duration,
};
use tracing::level_filters::LevelFilter;

const EXAMPLES: &str = "\
Examples:
  hlrp jobs list                          your jobs that wait or run
  hlrp jobs watch 4711 4712               both jobs of a race, until both are over
  hlrp jobs logs 4711 --follow            output and errors as they are written
  hlrp jobs status 4711                   how it ended; also kept in the run's submit/final.json
  hlrp jobs cancel 4711                   asks first; only jobs that hlrp submitted
  hlrp jobs list --remote --yes           the same from a workstation, over ssh";

/// Which Slurm, and how to print.
#[derive(Debug, Clone, Args)]
pub(crate) struct SlurmOptions {
    /// Slurm clusters to ask, separated by commas, where a site has several; an id with its cluster (`4711;lrz`) needs none.
    #[arg(short = 'M', long, value_name = "NAMES")]
    clusters: Option<String>,
    /// Seconds that a command of Slurm may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RemoteArgs,
}

impl SlurmOptions {
    fn slurm(&self) -> Slurm {
        Slurm { clusters: self.clusters.clone(), time_limit: Duration::from_secs(self.timeout) }
    }
}

/// A job's id as users give it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobId {
    id: String,
    cluster: Option<String>,
}

impl FromStr for JobId {
    type Err = SlurmError;

    fn from_str(text: &str) -> Result<Self, SlurmError> {
        let (id, cluster) = text.split_once(';').map_or((text, None), |(id, cluster)| (id, Some(cluster.to_owned())));
        check_id(id)?;
        Ok(Self { id: id.to_owned(), cluster })
    }
}

/// Watch, read and cancel Slurm jobs.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum JobsCommand {
    /// List your jobs that wait or run (squeue --me).
    List {
        #[command(flatten)]
        slurm: SlurmOptions,
    },
    /// Show one job in the queue: partition, name, state, elapsed time, time limit, and why it waits or where it runs.
    Show {
        /// Id; a member of an array is 4711_3.
        #[arg(value_name = "ID")]
        job: JobId,
        #[command(flatten)]
        slurm: SlurmOptions,
    },
    /// Follow the states of jobs until all of them are over; several ids show a race.
    Watch(watch::WatchOptions),
    /// Print what a job has written to its .out and .err files.
    Logs(logs::LogsOptions),
    /// Say how a job ended (sacct; without accounting the controller, then the run's own record).
    Status(status::StatusOptions),
    /// Cancel jobs that hlrp submitted; asks first.
    Cancel(cancel::CancelOptions),
}

impl JobsCommand {
    fn slurm(&self) -> &SlurmOptions {
        match self {
            Self::List { slurm } | Self::Show { slurm, .. } => slurm,
            Self::Watch(options) => &options.slurm,
            Self::Logs(options) => &options.slurm,
            Self::Status(options) => &options.slurm,
            Self::Cancel(options) => &options.slurm,
        }
    }
}

/// Runs a command and prints its result.
pub(crate) fn run(command: &JobsCommand) -> Result<ExitCode> {
    console::init(LevelFilter::INFO, 0)?;
    let tree = ConfigArgs { overrides: Vec::new(), config_dir: None, config_name: PRIMARY.to_owned() };
    if let Some(code) = command.slurm().remote.instead(&tree)? {
        return Ok(code);
    }
    match command {
        JobsCommand::List { slurm } if slurm.json => print_json(&slurm.slurm().jobs()?)?,
        JobsCommand::List { slurm } => console::print(slurm.slurm().table(None)?.trim_end()),
        JobsCommand::Show { job, slurm } => show(job, slurm)?,
        JobsCommand::Watch(options) => watch::watch(options)?,
        JobsCommand::Logs(options) => logs::logs(options)?,
        JobsCommand::Status(options) => status::status(options)?,
        JobsCommand::Cancel(options) => cancel::cancel(options)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn show(job: &JobId, options: &SlurmOptions) -> Result<()> {
    let slurm = options.slurm().on(job.cluster.as_deref());
    let found = slurm.jobs_with_ids(&[&job.id])?;
    if found.is_empty() {
        return Err(unknown(&job.id).into());
    }
    if options.json {
        return print_json(&found);
    }
    console::print(slurm.table(Some(&job.id))?.trim_end());
    Ok(())
}

/// What the controller knows about a job (nothing, or its members if it is an array), with the Slurm that has it.
fn details(options: &SlurmOptions, job: &JobId) -> Result<(Slurm, Vec<JobDetails>)> {
    let slurm = options.slurm().on(job.cluster.as_deref());
    let jobs = slurm.details(&job.id)?;
    let cluster = jobs.first().and_then(|job| job.cluster.clone());
    if jobs.iter().any(|job| job.cluster != cluster) {
        let names: BTreeSet<&str> = jobs.iter().filter_map(|job| job.cluster.as_deref()).collect();
        let names: Vec<&str> = names.into_iter().collect();
        let message = format!("each of {} has a job {}", names.join(", "), job.id);
        return Err(CommandError::new(message, format!("say which one: '{};{}'", job.id, names[0])).into());
    }
    Ok((slurm.on(cluster.as_deref()), jobs))
}

/// The error for an id that the controller does not know.
fn unknown(id: &str) -> CommandError {
    CommandError::new(
        format!("Slurm does not know job {id} (any more)"),
        format!("`hlrp jobs status {id} --run-dir DIR` reads the run's own record; `hlrp jobs list` lists your jobs"),
    )
}

fn print_json(value: &impl Serialize) -> Result<()> {
    console::print(&serde_json::to_string_pretty(value)?);
    Ok(())
}

/// The directory of the run that a job of ours works on: that of its output or, for a member of an array, its own. None for members that
/// wait together, and for other people's jobs.
///
/// # Errors
/// The record of an array is damaged.
fn run_dir(job: &JobDetails) -> Result<Option<PathBuf>> {
    let folder = job.stdout.as_deref().and_then(Path::parent).filter(|_| job.comment.starts_with(COMMENT_PREFIX));
    let Some(folder) = folder else { return Ok(None) };
    match submission::members(&folder.join(SUBMIT_DIR))? {
        None => Ok(Some(folder.to_path_buf())),
        Some(members) => {
            let number = job.id.split_once('_').and_then(|(_, number)| number.parse::<usize>().ok());
            Ok(number.and_then(|number| members.get(number).cloned()))
        }
    }
}
