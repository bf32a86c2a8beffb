//! What a job does on its node before and after its program: claiming the run, cancelling its siblings, recording how the program ended, queueing
//! itself again.

use crate::{
    claim::{self, Claimed, Owner},
    client::{Answer, Job, Slurm, State},
    env,
    error::{Result, SubmitError},
    outcome::{CANCELLED, SUBMIT_DIR},
    plan::{JobPlan, PREFLIGHT},
    submission::{self, JobKind},
};
use hlrp_track::{
    env as track_env, exit_code,
    fs::{SUPERSEDED, write_atomic, write_json},
    host::hostname,
    time::timestamp,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Folder of the claims in that of a submission.
pub const CLAIMS: &str = "claims";
/// Folder of the exit codes.
pub const EXIT: &str = "exit";
/// What the name of a file there ends with that says that a program has started.
pub const STARTED: &str = ".started";

/// How far a run has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It has not started.
    New,
    /// It has a checkpoint to continue from.
    Resumable,
    /// It started and left none.
    WithoutCheckpoint,
    /// It is done.
    Finished,
}

/// What the batch script does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Starts the run.
    Start,
    /// Continues it.
    Resume,
    /// Ends, with success; why.
    Nothing(String),
}

impl Decision {
    /// The word that the batch script reads.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Resume => "resume",
            Self::Nothing(_) => "nothing",
        }
    }
}

/// How the program of a job ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct ExitRecord {
    code: u8,
    at: String,
}

/// The job that this process runs in.
///
/// # Errors
/// It runs in none.
pub fn this_job() -> Result<Owner> {
    let get = track_env::get;
    let id = get(track_env::SLURM_JOB_ID).ok_or(SubmitError::NoJob(track_env::SLURM_JOB_ID))?;
    let member = get(env::SLURM_ARRAY_JOB_ID).zip(get(env::SLURM_ARRAY_TASK_ID));
    Ok(Owner {
        cluster: get(track_env::SLURM_CLUSTER_NAME),
        job: member.map_or(id, |(array, member)| format!("{array}_{member}")),
        restart: get(env::SLURM_RESTART_COUNT).and_then(|count| count.parse().ok()).unwrap_or(0),
        host: hostname(),
        at: timestamp(),
    })
}

/// Claims the run for `me` and cancels its siblings that still wait.
///
/// # Errors
/// The claim cannot be made or read. A sibling that cannot be cancelled is a warning: it ends by itself when it starts.
pub fn begin(plan: &JobPlan, me: &Owner, progress: impl Fn() -> Result<Progress>) -> Result<Decision> {
    if is_cancelled(plan) {
        return Ok(Decision::Nothing("the run was cancelled with `hlrp jobs cancel`".into()));
    }
    if progress()? == Progress::Finished {
        cancel_siblings(plan, me);
        return Ok(Decision::Nothing("the run is finished".into()));
    }
    let has_ended = |owner: &Owner| has_ended(plan, me, owner);
    if let Claimed::Others(owner) = claim::claim(&plan.submit_dir.join(CLAIMS), me, has_ended)? {
        return Ok(Decision::Nothing(format!("{owner} has the run since {}", owner.at)));
    }
    cancel_siblings(plan, me);
    // Only now: until the claim was made, another job may have worked on the run.
    Ok(match progress()? {
        Progress::New => Decision::Start,
        Progress::Resumable => Decision::Resume,
        Progress::Finished => Decision::Nothing("the run is finished".into()),
        Progress::WithoutCheckpoint => {
            let folder = set_aside(&plan.run_dir)?;
            tracing::warn!("the run had started without saving a checkpoint; what it left is in {}", folder.display());
            Decision::Start
        }
    })
}

/// What Slurm says about the owner of a claim: the Slurm of its cluster, where the plan names several. `here` is the name of this Slurm,
/// where known.
pub fn state_of(plan: &JobPlan, owner: &Owner, here: Option<&str>) -> Answer {
    let rivals = plan.race.iter().filter_map(|rival| rival.clusters.as_deref());
    let known = rivals.chain(plan.resources.clusters.as_deref());
    let cluster = owner.cluster.as_deref().filter(|name| known.clone().any(|clusters| clusters == *name));
    // Another Slurm numbers its jobs from 1 too: this one's answer would be about another job.
    if cluster.is_none() && here.is_some() && owner.cluster.is_some() && owner.cluster.as_deref() != here {
        return Answer::Silent { reason: "it is of another Slurm, which cannot be asked from here".into() };
    }
    Slurm::new(None).on(cluster).state(&owner.job)
}

/// Whether Slurm says that the owner of a claim has ended. No answer means no.
fn has_ended(plan: &JobPlan, me: &Owner, owner: &Owner) -> bool {
    match state_of(plan, owner, me.cluster.as_deref()) {
        Answer::Active { state, .. } => {
            tracing::info!("{owner} is {state}");
            false
        }
        Answer::Ended { state, .. } => {
            tracing::info!("{owner} has ended ({state}) without finishing the run: this job takes it over");
            true
        }
        Answer::Unknown => {
            tracing::info!("Slurm does not know {owner} any more: this job takes the run over");
            true
        }
        Answer::Silent { reason } => {
            tracing::warn!("Slurm does not say whether {owner} has ended ({reason}): the run stays with it");
            false
        }
    }
}

/// Cancels the jobs of this run that still wait, on every cluster of the race: those that carry its token, and nothing else.
fn cancel_siblings(plan: &JobPlan, me: &Owner) {
    for rival in &plan.race {
        let slurm = Slurm::new(rival.clusters.clone());
        let jobs = match slurm.find_by_comment(&plan.token.comment()) {
            Ok(jobs) => jobs,
            Err(error) => {
                tracing::warn!("the siblings on {} are not cancelled ({error}); they end by themselves", rival.cluster);
                continue;
            }
        };
        let is_own = |job: &&Job| job.id == me.job && (job.cluster == me.cluster || job.cluster.is_none());
        let of_step = |comment: &str| {
            let step = comment.split_whitespace().nth(2);
            step == plan.step.as_deref() || step == Some(PREFLIGHT)
        };
        let is_waiting = |job: &&Job| job.state.is_waiting() && of_step(&job.comment);
        for job in jobs.iter().filter(is_waiting).filter(|job| !is_own(job)) {
            match slurm.on(job.cluster.as_deref()).cancel_pending(&job.id) {
                Ok(()) => tracing::info!("cancelled the waiting sibling {} on {}", job.id, rival.cluster),
                Err(error) => tracing::warn!("sibling {} is not cancelled ({error}); it ends by itself", job.id),
            }
        }
    }
}

/// Moves what a run left that never saved a checkpoint into `superseded/` of its directory, and returns the folder.
fn set_aside(run_dir: &Path) -> Result<PathBuf> {
    let superseded = run_dir.join(SUPERSEDED);
    let folder = (1..).map(|number| superseded.join(format!("start-{number}"))).find(|folder| !folder.exists());
    let folder = folder.unwrap_or_else(|| superseded.join("start"));
    fs::create_dir_all(&folder).map_err(SubmitError::io("create", &folder))?;
    for entry in fs::read_dir(run_dir).map_err(SubmitError::io("list", run_dir))? {
        let name = entry.map_err(SubmitError::io("list", run_dir))?.file_name();
        let text = name.to_string_lossy();
        let stays = [SUPERSEDED, SUBMIT_DIR].contains(&&*text) || text.ends_with(".out") || text.ends_with(".err");
        if !stays {
            let path = run_dir.join(&name);
            fs::rename(&path, folder.join(&name)).map_err(SubmitError::io("move", &path))?;
        }
    }
    Ok(folder)
}

/// Notes that the program of a task starts: from now on signals are passed on to it.
///
/// # Errors
/// The system's refusal.
pub fn note_start(plan: &JobPlan, me: &Owner) -> Result<()> {
    let folder = plan.submit_dir.join(EXIT);
    fs::create_dir_all(&folder).map_err(SubmitError::io("create", &folder))?;
    let id = track_env::get(track_env::SLURM_JOB_ID).unwrap_or_else(|| me.job.clone());
    Ok(write_atomic(&folder.join(format!("{id}.{}{STARTED}", me.restart)), me.at.clone() + "\n")?)
}

/// Notes how the program of a task ended.
///
/// # Errors
/// The system's refusal.
pub fn note_exit(plan: &JobPlan, me: &Owner, code: u8) -> Result<()> {
    let rank = track_env::get(env::SLURM_PROCID).unwrap_or_else(|| "0".into());
    let folder = plan.submit_dir.join(EXIT);
    fs::create_dir_all(&folder).map_err(SubmitError::io("create", &folder))?;
    let path = folder.join(format!("{}.{}.{rank}.json", me.job, me.restart));
    Ok(write_json(&path, &ExitRecord { code, at: timestamp() })?)
}

/// Ends a job whose step ended with `code`, as srun says it: queues it again if it was interrupted and may go on. Returns the exit code of the
/// batch script.
///
/// # Errors
/// A record cannot be read or written.
pub fn end(plan: &JobPlan, me: &Owner, code: u8) -> Result<u8> {
    let recorded = real_code(plan, me)?;
    let code = recorded.unwrap_or(code);
    if recorded.is_none() && code == exit_code::INTERRUPTED {
        // The program had not started; this counts as one of the restarts all the same.
        note_exit(plan, me, code)?;
    }
    match code {
        0 => cancel_siblings(plan, me),
        exit_code::INTERRUPTED => return queue_again(plan, me).map(|()| code),
        _ => tracing::error!(
            "the program ended with exit code {code}; see {}",
            plan.run_dir.join("unified.log").display()
        ),
    }
    Ok(code)
}

/// The exit code of the program: of several tasks the one that is not just a consequence of another's end. None where no task says that it
/// failed and one says nothing.
fn real_code(plan: &JobPlan, me: &Owner) -> Result<Option<u8>> {
    let mut codes: Vec<u8> = Vec::new();
    let start = format!("{}.{}.", me.job, me.restart);
    for path in records(plan)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(&start) {
            codes.push(read_exit(&path)?.code);
        }
    }
    let is_cause = |code: &&u8| **code > 0 && **code < 128;
    let failed = codes.iter().find(is_cause).or_else(|| codes.iter().find(|code| **code > 0));
    // A task that was killed has left no record.
    let finished = codes.first().filter(|_| codes.len() >= plan.resources.num_tasks() as usize);
    Ok(failed.or(finished).copied())
}

fn records(plan: &JobPlan) -> Result<Vec<PathBuf>> {
    let folder = plan.submit_dir.join(EXIT);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(&folder).map_err(SubmitError::io("list", &folder))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(SubmitError::io("list", &folder))?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !is_hidden && path.extension().is_some_and(|end| end == "json") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn read_exit(path: &Path) -> Result<ExitRecord> {
    let text = fs::read_to_string(path).map_err(SubmitError::io("read", path))?;
    serde_json::from_str(&text)
        .map_err(|error| SubmitError::Malformed { path: path.to_path_buf(), reason: error.to_string() })
}

/// Queues the job again, under its own id where the site allows it, else as a new job with the same script.
fn queue_again(plan: &JobPlan, me: &Owner) -> Result<()> {
    let hint = format!("continue it with: hlrp submit --resume {}", plan.run_dir.display());
    let stays = |why: &str| tracing::warn!("the run was interrupted and is not queued again: {why}; {hint}");
    if is_cancelled(plan) {
        stays("it was cancelled with `hlrp jobs cancel`");
        return Ok(());
    }
    let num_interruptions = num_interruptions(plan)?;
    if num_interruptions > plan.max_restarts as usize {
        stays(&format!("submit.max_restarts={} is reached", plan.max_restarts));
        return Ok(());
    }
    let slurm = Slurm::new(plan.resources.clusters.clone());
    match slurm.state(&me.job) {
        // The time limit comes, or Slurm takes the node away: in both cases the run goes on.
        Answer::Active { .. } | Answer::Ended { state: State::Timeout | State::Preempted | State::NodeFail, .. } => {}
        Answer::Ended { state, .. } => {
            stays(&format!("the job is {state}"));
            return Ok(());
        }
        Answer::Unknown => {
            stays("Slurm does not know the job any more");
            return Ok(());
        }
        Answer::Silent { reason } => {
            stays(&format!("Slurm does not answer ({reason})"));
            return Ok(());
        }
    }
    match slurm.requeue(&me.job) {
        Ok(()) => {
            tracing::info!("queued again ({num_interruptions} of {} times)", plan.max_restarts);
            Ok(())
        }
        Err(refused) => {
            tracing::info!("Slurm does not queue the job again ({refused}): a new job continues the run");
            release_claim(plan, me)?;
            let submitted = submission::submit(plan, &slurm, &[])?;
            submission::record(plan, &submitted, JobKind::Continuation)?;
            tracing::info!("job {} continues the run", submitted.id);
            Ok(())
        }
    }
}

fn release_claim(plan: &JobPlan, me: &Owner) -> Result<()> {
    let claims = plan.submit_dir.join(CLAIMS);
    match claim::current(&claims)? {
        Some((number, owner)) if owner.is_same_job(me) => claim::release(&claims, number),
        _ => Ok(()),
    }
}

/// How often the run was interrupted: once for each start of a job.
fn num_interruptions(plan: &JobPlan) -> Result<usize> {
    let mut starts = BTreeSet::new();
    for path in records(plan)? {
        if read_exit(&path)?.code == exit_code::INTERRUPTED {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            starts.insert(name.rsplit_once('.').map_or(name.clone(), |(start, _)| start.to_owned()));
        }
    }
    Ok(starts.len())
}

fn is_cancelled(plan: &JobPlan) -> bool {
    plan.submit_dir.join(CANCELLED).is_file() || plan.run_dir.join(SUBMIT_DIR).join(CANCELLED).is_file()
}
