//! Queueing a run again that was stopped, or the rest of a submission that was cut off, with the scripts that there are.

use super::{
    queue::{Queued, after_check, after_step, lock, submit_chain, submit_check},
    standing::{Busy, Standing, active, jobs_of_run, remember, standing},
};
use crate::jobs::record_end;
use anyhow::{Context, Result, bail};
use hlrp_config::Problem;
use hlrp_slurm::{
    client::{Job, Slurm},
    outcome::{SUBMIT_DIR, final_states, set_cancellation_aside},
    plan::JobPlan,
    shell::quoted,
    submission::{self, JobKind},
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

/// Jobs of one cluster that are to be queued, each after the one before.
struct Chain {
    jobs: Vec<JobPlan>,
    /// What the first of them waits for.
    after: After,
}

/// What the first job of a chain waits for.
enum After {
    Nothing,
    /// The step before it, which is in the queue.
    Step(String),
    /// A check of the node, which is in the queue.
    Check(String),
    /// A check of the node that is to be queued.
    NewCheck,
}

/// Queues the run in `run_dir` on every cluster that it was submitted to. Where jobs of it wait, as after a submission that was cut off, only
/// those that have none are added.
///
/// # Errors
/// There are overrides, it was not submitted, it is finished, or there is nothing to add to the jobs that wait or run; or Slurm refuses or
/// does not answer.
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
            return Err(incomplete(&run_dir, "of a run").into());
        }
        let message = format!("{} was not submitted: it has no {SUBMIT_DIR}/", run_dir.display());
        let hint = "continue it with the --resume of its own command, for example hlrp train-laq --resume RUN_DIR";
        return Err(Problem::new("--resume", message, hint).into());
    };
    if !first.is_queued() {
        let message = format!("{} was started on this machine, without Slurm", run_dir.display());
        let words = first.resume.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
        return Err(Problem::new("--resume", message, format!("continue it with: hlrp {words}")).into());
    }
    let _lock = lock(&run_dir)?;
    let jobs = jobs_of_run(first, time_limit)?;
    let mut chains = Vec::new();
    let mut busy = None;
    for rival in &first.race {
        let of_cluster = plans.get(&rival.cluster);
        let planned = of_cluster.ok_or_else(|| incomplete(&run_dir, &format!("for '{}'", rival.cluster)))?;
        planned.iter().try_for_each(|plan| remember(plan, &jobs, time_limit))?;
        planned.iter().try_for_each(|plan| record_ends(plan, time_limit))?;
        chains.extend(missing(planned, &jobs, time_limit, &mut busy)?);
    }
    if chains.is_empty() {
        let Some(Busy { id, what }) = busy else { bail!("every step of the pipeline is done") };
        let hint = "wait for its end, or cancel it first: hlrp jobs cancel ID";
        return Err(Problem::new("--resume", format!("job {id} of this run {what}"), hint).into());
    }
    set_cancellation_aside(&run_dir)?;
    let mut queued = Queued::default();
    let result = chains.iter().try_for_each(|chain| submit(chain, time_limit, &mut queued));
    queued.print();
    result.map(|()| ExitCode::SUCCESS)
}

/// Keeps how the earlier jobs of a plan ended, where Slurm still knows: it forgets.
fn record_ends(plan: &JobPlan, time_limit: Duration) -> Result<()> {
    let known = final_states(&plan.run_dir)?;
    let jobs = submission::jobs(&plan.submit_dir)?.into_iter();
    for job in jobs.filter(|job| job.cluster == plan.cluster && !known.contains_key(&job.id)) {
        record_end(&Slurm { clusters: job.clusters, time_limit }, &job.id, Some(&plan.run_dir));
    }
    Ok(())
}

/// A submission that was interrupted before anything was queued, or another kind of job.
fn incomplete(run_dir: &Path, of: &str) -> Problem {
    let message = format!("{SUBMIT_DIR}/ of {} has no script {of}", run_dir.display());
    let hint = "its submission was interrupted before anything was queued, or it is another kind of job: submit into another directory";
    Problem::new("--resume", message, hint)
}

/// The jobs of one cluster that are not there, if they can be added behind those that are; `busy` is the first job that was found.
fn missing(planned: &[JobPlan], jobs: &[Job], time_limit: Duration, busy: &mut Option<Busy>) -> Result<Option<Chain>> {
    let mut chain = Chain { jobs: Vec::new(), after: After::Nothing };
    for plan in planned {
        match standing(plan, jobs, time_limit)? {
            Standing::Done => {}
            Standing::Missing => chain.jobs.push(plan.clone()),
            Standing::Taken(other) => drop(busy.get_or_insert(other)),
            Standing::Queued(job) => {
                let id = job.id.clone();
                busy.get_or_insert(job);
                // A step in the queue cannot be told to wait for an earlier one that is not.
                if !chain.jobs.is_empty() {
                    return Ok(None);
                }
                chain.after = After::Step(id);
            }
        }
    }
    let Some(first) = chain.jobs.first() else { return Ok(None) };
    if matches!(chain.after, After::Nothing) {
        chain.after = check_before(first, jobs)?;
    }
    Ok(Some(chain))
}

/// The check that was asked for before the first start of a run on a cluster.
fn check_before(first: &JobPlan, jobs: &[Job]) -> Result<After> {
    let was_queued =
        submission::jobs(&first.submit_dir)?.iter().any(|job| job.cluster == first.cluster && job.kind == JobKind::Run);
    let scripts = first.race.iter().map(|rival| JobPlan { cluster: rival.cluster.clone(), ..first.clone() });
    let is_asked_for = scripts.into_iter().any(|plan| plan.preflight_script_path().is_file());
    Ok(match active(jobs, &first.preflight()) {
        Some(check) => After::Check(check.id.clone()),
        None if is_asked_for && !was_queued => After::NewCheck,
        None => After::Nothing,
    })
}

fn submit(chain: &Chain, time_limit: Duration, queued: &mut Queued) -> Result<()> {
    let Some(first) = chain.jobs.first() else { return Ok(()) };
    let slurm = Slurm { clusters: first.resources.clusters.clone(), time_limit };
    let options = match &chain.after {
        After::Nothing => Vec::new(),
        After::Step(id) => after_step(id),
        After::Check(id) => after_check(id),
        After::NewCheck => submit_check(first, &slurm, queued)?,
    };
    submit_chain(&chain.jobs, &slurm, options, queued).with_context(|| format!("cluster '{}'", first.cluster))
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
