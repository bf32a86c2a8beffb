//! What of a submission is in the queue already, by the token in the comments of its jobs.

use crate::pipeline;
use anyhow::{Context, Result};
use hlrp_slurm::{
    claim,
    client::{Answer, Job, Slurm, Submitted},
    in_job::{CLAIMS, state_of},
    plan::JobPlan,
    submission::{self, JobKind},
};
use std::time::Duration;

/// How a planned job stands.
pub(super) enum Standing {
    /// Its step is done.
    Done,
    /// It waits or runs.
    Queued(Busy),
    /// Another job has its run.
    Taken(Busy),
    /// Nothing works on it.
    Missing,
}

/// A job that waits or runs, or may do so.
pub(super) struct Busy {
    /// Its id.
    pub(super) id: String,
    /// What it does: `is PENDING`.
    pub(super) what: String,
}

/// The jobs of the run of `plan`, those that are over included, on every cluster of its race.
///
/// # Errors
/// A Slurm that does not answer may have a job of the run.
pub(super) fn jobs_of_run(plan: &JobPlan, time_limit: Duration) -> Result<Vec<Job>> {
    let mut jobs: Vec<Job> = Vec::new();
    for rival in &plan.race {
        let slurm = Slurm { clusters: rival.clusters.clone(), time_limit };
        let unknown = || format!("whether a job of this run waits on '{}' is not known", rival.cluster);
        let found = slurm.find_by_comment(&plan.token.comment()).with_context(unknown)?;
        jobs.extend(found);
    }
    Ok(jobs)
}

/// Of `jobs` the one that has the comment of a plan and is not over.
pub(super) fn active<'a>(jobs: &'a [Job], plan: &JobPlan) -> Option<&'a Job> {
    jobs.iter().find(|job| job.comment == plan.comment() && !job.state.is_over())
}

/// Remembers the jobs of a plan that a client queued which was ended before it could.
///
/// # Errors
/// A damaged record, the system's refusal, or a Slurm that does not answer and may have the array of the run.
pub(super) fn remember(plan: &JobPlan, jobs: &[Job], time_limit: Duration) -> Result<()> {
    let known = submission::ids(&plan.submit_dir)?;
    if let Some(member) = submission::array_of(&plan.submit_dir)?.filter(|_| known.is_empty()) {
        let slurm = Slurm { clusters: plan.resources.clusters.clone(), time_limit };
        if let Some(array) = submission::find(&slurm, &member.comment, &[])? {
            submission::record(plan, &array.member(member.number), JobKind::Run)?;
        }
    }
    let kinds = [(plan.comment(), JobKind::Run), (plan.preflight().comment(), JobKind::Preflight)];
    for job in jobs.iter().filter(|job| !known.contains(&job.id)) {
        if let Some((_, kind)) = kinds.iter().find(|(comment, _)| *comment == job.comment) {
            submission::record(plan, &Submitted { id: job.id.clone(), cluster: job.cluster.clone() }, *kind)?;
        }
    }
    Ok(())
}

/// How a planned job stands, by `jobs` and by the claim of its run.
///
/// # Errors
/// A record is damaged.
pub(super) fn standing(plan: &JobPlan, jobs: &[Job], time_limit: Duration) -> Result<Standing> {
    if plan.step.as_ref().is_some_and(|step| pipeline::is_done(&plan.run_dir, step)) {
        return Ok(Standing::Done);
    }
    if let Some(job) = active(jobs, plan) {
        return Ok(Standing::Queued(Busy { id: job.id.clone(), what: format!("is {}", job.state) }));
    }
    // A member of an array has the comment of the array.
    for member in submission::jobs(&plan.submit_dir)?.into_iter().filter(|job| job.id.contains('_')) {
        let answer = Slurm { clusters: member.clusters, time_limit }.state(&member.id);
        if let Some(busy) = busy(&member.id, answer) {
            return Ok(Standing::Queued(busy));
        }
    }
    let owner = claim::current(&plan.submit_dir.join(CLAIMS))?.map(|(_, owner)| owner);
    let busy = owner.and_then(|owner| busy(&owner.job, state_of(plan, &owner, None)));
    Ok(busy.map_or(Standing::Missing, Standing::Taken))
}

fn busy(id: &str, answer: Answer) -> Option<Busy> {
    let what = match answer {
        Answer::Active { state, .. } => format!("is {state}"),
        Answer::Silent { reason } => format!("may be running: {reason}"),
        Answer::Ended { .. } | Answer::Unknown => return None,
    };
    Some(Busy { id: id.to_owned(), what })
}
