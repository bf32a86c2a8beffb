//! `hlrp jobs watch`: states as they change.

use super::{JobId, SlurmOptions, status::record_end, table::table, unknown};
use anyhow::Result;
use clap::Args;
use hlrp_slurm::client::{Answer, Job, Slurm, SlurmError, State};
use hlrp_track::console;
use std::{
    collections::BTreeMap,
    io::{IsTerminal, Write, stdout},
    thread,
    time::Duration,
};

const EXAMPLE: &str = "\
On a terminal the table is drawn again; elsewhere each change is a line. The command ends when all jobs are over; a job that
Slurm puts back into the queue is not. Of a race (several ids with one run) the job that has the run is named when another ends.
How a job ended is kept in submit/final.json of its run.";

/// Options of `hlrp jobs watch`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct WatchOptions {
    /// Ids; without any, all your jobs that wait or run now.
    #[arg(value_name = "ID")]
    jobs: Vec<JobId>,
    /// Seconds between two looks; a busy site asks for 30 or more.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    interval: u64,
    #[command(flatten)]
    pub(super) slurm: SlurmOptions,
}

/// A job's name here: its cluster, where one is named, and its id.
type Key = (Option<String>, String);

/// What was seen of the jobs, and what is printed about it.
struct Watch {
    json: bool,
    /// On a terminal: the number of lines to draw over.
    drawn: Option<usize>,
    seen: BTreeMap<Key, Job>,
}

pub(super) fn watch(options: &WatchOptions) -> Result<()> {
    let slurm = options.slurm.slurm();
    let ids = if options.jobs.is_empty() { own(&slurm)? } else { options.jobs.clone() };
    if ids.is_empty() {
        console::print("no jobs wait or run");
        return Ok(());
    }
    let drawn = (stdout().is_terminal() && !options.slurm.json).then_some(0);
    let mut watch = Watch { json: options.slurm.json, drawn, seen: BTreeMap::new() };
    // Ids that are wrong, and a host without Slurm, are errors now; later no answer is only late.
    watch.update(look(&slurm, &ids)?)?;
    if let Some(job) = ids.iter().find(|id| !watch.seen.keys().any(|key| belongs(key, id))) {
        return Err(unknown(&job.id).into());
    }
    while !watch.is_over() {
        thread::sleep(Duration::from_secs(options.interval));
        match look(&slurm, &ids) {
            Ok(jobs) => {
                let jobs = forgotten(&slurm, &watch, jobs);
                for (cluster, id) in watch.ended(&jobs) {
                    record_end(&slurm.on(cluster.as_deref()), &id, None);
                }
                watch.update(jobs)?;
            }
            Err(error) => watch.note(&format!("{error}; trying again")),
        }
    }
    Ok(())
}

fn own(slurm: &Slurm) -> Result<Vec<JobId>, SlurmError> {
    let jobs = slurm.jobs()?;
    let base = |job: &Job| JobId {
        // Members of an array that wait together have one entry.
        id: job.id.split_once("_[").map_or(job.id.as_str(), |(array, _)| array).to_owned(),
        cluster: job.cluster.clone(),
    };
    let mut ids: Vec<JobId> = jobs.iter().map(base).collect();
    ids.dedup();
    Ok(ids)
}

/// The jobs of `ids`, with one question to each Slurm.
fn look(slurm: &Slurm, ids: &[JobId]) -> Result<Vec<Job>, SlurmError> {
    let mut by_cluster: BTreeMap<Option<&str>, Vec<&str>> = BTreeMap::new();
    for job in ids {
        by_cluster.entry(job.cluster.as_deref()).or_default().push(&job.id);
    }
    let mut jobs = Vec::new();
    for (cluster, ids) in by_cluster {
        jobs.extend(slurm.on(cluster).jobs_with_ids(&ids)?);
    }
    Ok(jobs)
}

fn belongs((cluster, id): &Key, wanted: &JobId) -> bool {
    let is_cluster = wanted.cluster.is_none() || wanted.cluster == *cluster;
    let is_member = id.strip_prefix(&wanted.id).is_some_and(|rest| rest.starts_with('_'));
    is_cluster && (*id == wanted.id || is_member)
}

/// Adds the last state of jobs that the controller has forgotten since the last look.
fn forgotten(slurm: &Slurm, watch: &Watch, mut jobs: Vec<Job>) -> Vec<Job> {
    let keys: Vec<Key> = jobs.iter().map(key).collect();
    // Members that wait together get entries of their own when they start.
    let is_missing =
        |entry: &(&Key, &Job)| !keys.contains(entry.0) && !entry.1.state.is_over() && !entry.0.1.contains('[');
    let missing: Vec<Job> = watch.seen.iter().filter(is_missing).map(|(_, job)| job.clone()).collect();
    for mut job in missing {
        job.state = match slurm.on(job.cluster.as_deref()).state(&job.id) {
            Answer::Active { state, .. } | Answer::Ended { state, .. } => state,
            Answer::Unknown => State::Other("FORGOTTEN".to_owned()),
            Answer::Silent { .. } => job.state,
        };
        jobs.push(job);
    }
    jobs
}

fn key(job: &Job) -> Key {
    (job.cluster.clone(), job.id.clone())
}

impl Watch {
    /// Of `jobs` those that are over now and were not before.
    fn ended(&self, jobs: &[Job]) -> Vec<Key> {
        let was_over = |key: &Key| self.seen.get(key).is_some_and(|job| job.state.is_over());
        jobs.iter().filter(|job| job.state.is_over()).map(key).filter(|key| !was_over(key)).collect()
    }

    /// Takes in a look at all jobs and prints what is new.
    fn update(&mut self, jobs: Vec<Job>) -> Result<()> {
        let now: BTreeMap<Key, Job> = jobs.into_iter().map(|job| (key(&job), job)).collect();
        let is_new = |(key, job): &(&Key, &Job)| {
            self.seen.get(*key).is_none_or(|before| (&before.state, &before.reason) != (&job.state, &job.reason))
        };
        let changed: Vec<Job> = now.iter().filter(is_new).map(|(_, job)| job.clone()).collect();
        self.seen = now;
        if self.drawn.is_some() {
            self.draw("");
            return Ok(());
        }
        for job in changed {
            if self.json {
                console::print(&serde_json::to_string(&job)?);
            } else {
                console::print(&self.line(&job));
            }
        }
        Ok(())
    }

    fn line(&self, job: &Job) -> String {
        let cluster = job.cluster.iter().map(|name| format!(" of {name}")).collect::<String>();
        let place = if job.nodes.is_empty() { job.reason.as_str() } else { job.nodes.as_str() };
        let winner = self.winner(job).map(|id| format!("; job {id} has the run")).unwrap_or_default();
        format!("job {}{cluster} ({}, {}): {} ({place}){winner}", job.id, job.name, job.partition, job.state)
    }

    /// The job that has the run of `job`, which ended without it.
    fn winner(&self, job: &Job) -> Option<&str> {
        let token = job.comment.split_whitespace().next()?;
        let is_rival = |other: &&Job| key(other) != key(job) && other.comment.split_whitespace().next() == Some(token);
        let is_winner = |other: &&Job| matches!(other.state, State::Running | State::Configuring | State::Completing);
        let rival = self.seen.values().filter(is_rival).find(is_winner)?;
        job.state.is_over().then_some(rival.id.as_str())
    }

    fn draw(&mut self, note: &str) {
        let jobs: Vec<&Job> = self.seen.values().collect();
        let text = table(&jobs) + note;
        let up = match self.drawn {
            None | Some(0) => String::new(),
            // To the first line of what was drawn, and clear from there.
            Some(lines) => format!("\u{1b}[{lines}A\u{1b}[J"),
        };
        let mut out = stdout().lock();
        // A terminal that has gone sees no more.
        let _ = write!(out, "{up}{text}").and_then(|()| out.flush());
        self.drawn = Some(text.lines().count());
    }

    fn note(&mut self, text: &str) {
        if self.drawn.is_some() {
            self.draw(&format!("{text}\n"));
        } else {
            tracing::warn!("{text}");
        }
    }

    fn is_over(&self) -> bool {
        self.seen
            .values()
            .all(|job| job.state.is_over() || matches!(&job.state, State::Other(name) if name == "FORGOTTEN"))
    }
}
