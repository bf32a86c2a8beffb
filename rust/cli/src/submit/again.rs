//! Queueing a run again that was stopped, with the scripts that it has.

use super::queue::{Queued, submit_chain};
use crate::pipeline;
use anyhow::{Context, Result, bail};
use hlrp_config::Problem;
use hlrp_slurm::{
    claim,
    client::{Answer, Slurm},
    in_job::{CLAIMS, state_of},
    outcome::{CANCELLED, SUBMIT_DIR},
    plan::JobPlan,
    submission,
};
use hlrp_track::console;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use tracing::level_filters::LevelFilter;

/// Queues the run in `run_dir` on every cluster that it was submitted to.
///
/// # Errors
/// There are overrides, it was not submitted, it is finished, or a job of it waits or runs; or Slurm refuses or does not answer.
pub(super) fn submit_again(run_dir: &Path, overrides: &[String], time_limit: Duration) -> Result<ExitCode> {
    if let Some(argument) = overrides.first() {
        let message = format!("'{argument}' cannot change a run that is queued again with the scripts that it has");
        return Err(Problem::new("--resume", message, "leave it out, or submit a new run").into());
    }
    console::init(LevelFilter::INFO, 0)?;
    let run_dir = fs::canonicalize(run_dir).with_context(|| format!("cannot find {}", run_dir.display()))?;
    let plans = plans(&run_dir.join(SUBMIT_DIR))?;
    let Some(first) = plans.values().flatten().next() else {
        if run_dir.join(SUBMIT_DIR).is_dir() {
            let message = format!("{SUBMIT_DIR}/ of {} has no script of a run", run_dir.display());
            let hint = "its submission was interrupted before anything was queued, or it is another kind of job: submit into another directory";
            return Err(Problem::new("--resume", message, hint).into());
        }
        let message = format!("{} was not submitted: it has no {SUBMIT_DIR}/", run_dir.display());
        let hint = "continue it with the --resume of its own command, for example hlrp train-laq --resume RUN_DIR";
        return Err(Problem::new("--resume", message, hint).into());
    };
    refuse_active(first, time_limit)?;
    let marker = run_dir.join(SUBMIT_DIR).join(CANCELLED);
    if marker.is_file() {
        let aside = (1..).map(|n| marker.with_file_name(format!("cancelled-{n}.json"))).find(|path| !path.exists());
        fs::rename(&marker, aside.unwrap_or_else(|| marker.clone())).context("cannot set the cancellation aside")?;
    }
    let mut queued = Queued::default();
    let mut result = Ok(());
    for jobs in plans.values() {
        let left: Vec<JobPlan> = jobs.iter().filter(|job| !is_done(job)).cloned().collect();
        let Some(first) = left.first() else { bail!("every step of the pipeline is done") };
        let slurm = Slurm { clusters: first.resources.clusters.clone(), time_limit };
        result = submit_chain(&left, &slurm, Vec::new(), &mut queued);
        if result.is_err() {
            break;
        }
    }
    queued.print();
    result.map(|()| ExitCode::SUCCESS)
}

fn is_done(job: &JobPlan) -> bool {
    job.step.as_ref().is_some_and(|step| pipeline::is_done(&job.run_dir, step))
}

/// The plans of a submission by cluster; those of a pipeline in the order of its steps.
fn plans(submit_dir: &Path) -> Result<BTreeMap<String, Vec<JobPlan>>> {
    let mut paths = scripts(submit_dir)?;
    let mut folders: Vec<PathBuf> = match fs::read_dir(submit_dir) {
        Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect(),
        Err(_) => Vec::new(),
    };
    folders.sort();
    for folder in folders {
        paths.extend(scripts(&folder)?);
    }
    let mut plans: BTreeMap<String, Vec<JobPlan>> = BTreeMap::new();
    for path in paths {
        let plan = JobPlan::read(&path.with_extension("json"))?;
        plans.entry(plan.cluster.clone()).or_default().push(plan);
    }
    Ok(plans)
}

/// The batch scripts of runs in a folder.
fn scripts(folder: &Path) -> Result<Vec<PathBuf>> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let has_plan = path.extension().is_some_and(|end| end == "sbatch") && path.with_extension("json").is_file();
        if has_plan {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// A Slurm that does not answer may have a job of the run: then nothing is queued.
fn refuse_active(plan: &JobPlan, time_limit: Duration) -> Result<()> {
    let hint = "wait for its end, or cancel it first: hlrp jobs cancel ID";
    let refused = |id: &str, what: &str| Problem::new("--resume", format!("job {id} of this run {what}"), hint).into();
    for rival in &plan.race {
        let slurm = Slurm { clusters: rival.clusters.clone(), time_limit };
        let unknown = || format!("whether a job of this run waits on '{}' is not known", rival.cluster);
        let jobs = slurm.find_by_comment(&plan.token.comment()).with_context(unknown)?;
        if let Some(job) = jobs.iter().find(|job| !job.state.is_over()) {
            return Err(refused(&job.id, &format!("is {}", job.state)));
        }
    }
    // A member of an array has the comment of the array.
    for member in submission::jobs(&plan.submit_dir)?.into_iter().filter(|job| job.id.contains('_')) {
        match (Slurm { clusters: member.clusters, time_limit }).state(&member.id) {
            Answer::Active { state, .. } => return Err(refused(&member.id, &format!("is {state}"))),
            Answer::Silent { reason } => return Err(refused(&member.id, &format!("may be running: {reason}"))),
            Answer::Ended { .. } | Answer::Unknown => {}
        }
    }
    let owner = claim::current(&plan.submit_dir.join(CLAIMS)).ok().flatten().map(|(_, owner)| owner);
    let Some(owner) = owner else { return Ok(()) };
    match state_of(plan, &owner, None) {
        Answer::Active { state, .. } => Err(refused(&owner.job, &format!("is {state}"))),
        Answer::Silent { reason } => Err(refused(&owner.job, &format!("may be running: {reason}"))),
        Answer::Ended { .. } | Answer::Unknown => Ok(()),
    }
}
