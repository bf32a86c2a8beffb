//! Getting a job into the queue exactly once, and remembering it.

use crate::{
    client::{Slurm, SlurmError, Submitted},
    error::{Result, SubmitError},
    plan::JobPlan,
    script::batch_script,
};
use hlrp_track::{
    fs::{write_atomic, write_json},
    time::timestamp,
};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// Folder of the jobs in that of a submission.
pub const JOBS: &str = "jobs";
/// File of an array's own folder with the run directories of its members.
const MEMBERS: &str = "members.json";
/// A job that sbatch has taken without an answer is looked for during this time.
const LOOKUP_TIME: Duration = Duration::from_secs(60);
const LOOKUP_INTERVAL: Duration = Duration::from_secs(3);

/// What a job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// It trains.
    Run,
    /// It checks the node before the run.
    Preflight,
    /// It continues the run after another job.
    Continuation,
}

/// A job of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobRecord {
    /// Its id.
    pub id: String,
    /// Its Slurm cluster, where a site has several.
    pub clusters: Option<String>,
    /// Option of `cluster` that it was submitted for.
    pub cluster: String,
    /// What it is for.
    pub kind: JobKind,
    /// When it was submitted, RFC 3339.
    pub at: String,
}

/// Writes plan and script of a job.
///
/// # Errors
/// The system's refusal.
pub fn write(plan: &JobPlan) -> Result<()> {
    fs::create_dir_all(&plan.submit_dir).map_err(SubmitError::io("create", &plan.submit_dir))?;
    let path = plan.path();
    write_json(&path, plan)?;
    Ok(write_atomic(&plan.script_path(), batch_script(plan))?)
}

/// Submits the script of a plan, beside the jobs that it has had. Where sbatch does not answer, the job is looked for by the token in its comment,
/// and submitted again only if Slurm answers that there is none.
///
/// # Errors
/// sbatch refuses, or does not answer and Slurm does not say whether there is a job.
pub fn submit(plan: &JobPlan, slurm: &Slurm, options: &[String]) -> Result<Submitted> {
    submit_script(&plan.script_path(), &plan.comment(), slurm, options, &ids(&plan.submit_dir)?)
}

/// As [`submit`], of any script whose jobs have this comment; `former` are the ids that such jobs have had.
///
/// # Errors
/// As [`submit`].
pub fn submit_script(
    script: &Path,
    comment: &str,
    slurm: &Slurm,
    options: &[String],
    former: &[String],
) -> Result<Submitted> {
    let find = || -> Result<Option<Submitted>> {
        let token = comment.split_whitespace().next().unwrap_or(comment);
        let jobs = slurm.find_by_comment(token)?;
        let job = jobs.into_iter().find(|job| job.comment == comment && !former.contains(&job.id));
        Ok(job.map(|job| Submitted { id: job.id, cluster: job.cluster }))
    };
    for _ in 0..2 {
        match slurm.submit(script, options) {
            Err(SlurmError::TimedOut { .. }) => {}
            submitted => return Ok(submitted?),
        }
        tracing::warn!("sbatch did not answer; looking for the job by its comment");
        let started = Instant::now();
        loop {
            if let Some(found) = find()? {
                return Ok(found);
            }
            if started.elapsed() > LOOKUP_TIME.min(slurm.time_limit * 2) {
                break;
            }
            thread::sleep(LOOKUP_INTERVAL.min(slurm.time_limit));
        }
    }
    Err(SlurmError::TimedOut { program: "sbatch", limit: slurm.time_limit * 2 }.into())
}

/// Remembers a job of a plan.
///
/// # Errors
/// The system's refusal.
pub fn record(plan: &JobPlan, submitted: &Submitted, kind: JobKind) -> Result<()> {
    let folder = plan.submit_dir.join(JOBS);
    fs::create_dir_all(&folder).map_err(SubmitError::io("create", &folder))?;
    let record = JobRecord {
        id: submitted.id.clone(),
        clusters: submitted.cluster.clone().or_else(|| plan.resources.clusters.clone()),
        cluster: plan.cluster.clone(),
        kind,
        at: timestamp(),
    };
    let path = folder.join(format!("{}-{}.json", plan.cluster, submitted.id));
    Ok(write_json(&path, &record)?)
}

/// Remembers which runs the members of an array are, by their number.
///
/// # Errors
/// The system's refusal.
pub fn record_members(submit_dir: &Path, run_dirs: &[&Path]) -> Result<()> {
    Ok(write_json(&submit_dir.join(MEMBERS), run_dirs)?)
}

/// The run directories of an array's members, by their number; none where the folder is not an array's.
///
/// # Errors
/// A damaged record, or the system's refusal.
pub fn members(submit_dir: &Path) -> Result<Option<Vec<PathBuf>>> {
    let path = submit_dir.join(MEMBERS);
    if !path.is_file() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path).map_err(SubmitError::io("read", &path))?;
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| SubmitError::Malformed { path: path.clone(), reason: error.to_string() })
}

/// The ids of the jobs of a submission.
///
/// # Errors
/// As [`jobs`].
pub fn ids(submit_dir: &Path) -> Result<Vec<String>> {
    Ok(jobs(submit_dir)?.into_iter().map(|job| job.id).collect())
}

/// The jobs of a submission, in the order of their ids.
///
/// # Errors
/// A damaged record, or the system's refusal.
pub fn jobs(submit_dir: &Path) -> Result<Vec<JobRecord>> {
    let folder = submit_dir.join(JOBS);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut jobs = Vec::new();
    for entry in fs::read_dir(&folder).map_err(SubmitError::io("list", &folder))? {
        let path = entry.map_err(SubmitError::io("list", &folder))?.path();
        if path.extension().is_none_or(|end| end != "json") {
            continue;
        }
        let text = fs::read_to_string(&path).map_err(SubmitError::io("read", &path))?;
        let job: JobRecord = serde_json::from_str(&text)
            .map_err(|error| SubmitError::Malformed { path: path.clone(), reason: error.to_string() })?;
        jobs.push(job);
    }
    // Of ids, the longer number is the later one; the times are those of several hosts.
    jobs.sort_by(|left, right| (left.id.len(), &left.id).cmp(&(right.id.len(), &right.id)));
    Ok(jobs)
}
