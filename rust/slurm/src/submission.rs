//! Getting a job into the queue exactly once, and remembering it.

use crate::{
    client::{Slurm, Submitted},
    error::{Result, SubmitError},
    plan::JobPlan,
    script::batch_script,
};
use hlrp_track::{
    fs::{write_atomic, write_json},
    time::timestamp,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
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
/// File of a member's run that says which array it is of.
const ARRAY: &str = "array.json";
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

/// Submits the script of a plan, beside the jobs that it has had. Where sbatch does not answer, or does not know whether the job was taken, the job
/// is looked for by the token in its comment, and submitted again only if Slurm answers that there is none.
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
    let mut is_last_try = false;
    loop {
        let error = match slurm.submit(script, options) {
            Err(error) if error.is_unsure() => error,
            submitted => return Ok(submitted?),
        };
        tracing::warn!("{error}; looking for the job by its comment");
        let started = Instant::now();
        loop {
            if let Some(found) = find(slurm, comment, former)? {
                return Ok(found);
            }
            if started.elapsed() > LOOKUP_TIME.min(slurm.time_limit * 2) {
                break;
            }
            thread::sleep(LOOKUP_INTERVAL.min(slurm.time_limit));
        }
        if is_last_try {
            return Err(error.into());
        }
        is_last_try = true;
    }
}

/// The job or array with this comment that is none of `former`, those over included as long as Slurm remembers them.
///
/// # Errors
/// Slurm does not answer.
pub fn find(slurm: &Slurm, comment: &str, former: &[String]) -> Result<Option<Submitted>> {
    let token = comment.split_whitespace().next().unwrap_or(comment);
    let found = slurm.find_by_comment(token)?.into_iter().filter(|job| job.comment == comment);
    let mut submitted = found.map(|job| Submitted { id: without_members(&job.id).to_owned(), cluster: job.cluster });
    Ok(submitted.find(|job| !former.contains(&job.id)))
}

/// The id of an array, of that of a member `12_3` or of members that wait together, `12_[4-7]`.
fn without_members(id: &str) -> &str {
    id.split_once('_').map_or(id, |(array, _)| array)
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

/// Which member of which array a run is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArrayMember {
    /// The comment of the array's job.
    pub comment: String,
    /// Number of the member.
    pub number: usize,
}

/// Remembers, before the array is queued, which member of it the run of a plan is.
///
/// # Errors
/// The system's refusal.
pub fn record_array(plan: &JobPlan, member: &ArrayMember) -> Result<()> {
    Ok(write_json(&plan.submit_dir.join(ARRAY), member)?)
}

/// Which member of which array a run is; none if it is a job of its own.
///
/// # Errors
/// A damaged record, or the system's refusal.
pub fn array_of(submit_dir: &Path) -> Result<Option<ArrayMember>> {
    read_record(&submit_dir.join(ARRAY))
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
    read_record(&submit_dir.join(MEMBERS))
}

/// What a file holds; none without the file.
fn read_record<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    if !path.is_file() {
        return Ok(None);
    }
    let text = fs::read_to_string(path).map_err(SubmitError::io("read", path))?;
    let malformed =
        |error: serde_json::Error| SubmitError::Malformed { path: path.to_path_buf(), reason: error.to_string() };
    serde_json::from_str(&text).map(Some).map_err(malformed)
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
