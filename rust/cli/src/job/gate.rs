//! Whether a step of a pipeline may start: the state of the pipeline decides, not the exit code of one of several racing jobs.

use crate::pipeline::{self, Before};
use anyhow::Result;
use hlrp_slurm::{
    claim,
    client::{Answer, Slurm},
    in_job::{self, CLAIMS, state_of},
    plan::JobPlan,
    submission::{self, JobKind, JobRecord},
};

/// When a step looks again whose predecessor this Slurm cannot watch.
const LATER: &str = "--begin=now+10minutes";

/// What a step that has its node does.
pub(super) enum Gate {
    /// It starts.
    Open,
    /// It cannot start; why.
    Closed(String),
    /// Another job will: this one has queued it behind the step that still runs.
    Later(String),
}

/// Asks the state of the pipeline. A run that is not a step of one may always start.
///
/// # Errors
/// The state or a claim is damaged, or the job cannot be queued again.
pub(super) fn ask(plan: &JobPlan) -> Result<Gate> {
    let Some(step) = &plan.step else { return Ok(Gate::Open) };
    let missing = match pipeline::before(&plan.run_dir, step, plan.after.as_deref())? {
        Before::Done => return Ok(Gate::Open),
        Before::Failed(name) => return Ok(Gate::Closed(format!("{name}, which {step} needs, has failed"))),
        Before::Missing(name) => name,
    };
    let claims = plan.submit_dir.with_file_name(&missing).join(CLAIMS);
    let owner = claim::current(&claims)?.map(|(_, owner)| owner);
    let slurm = Slurm::new(plan.resources.clusters.clone());
    let here = in_job::this_job()?.cluster;
    let answered = owner.map(|owner| (state_of(plan, &owner, here.as_deref()), owner));
    let (option, owner) = match answered {
        Some((Answer::Active { .. }, owner)) if owner.cluster.is_none() || owner.cluster == here => {
            (format!("--dependency=afterany:{}", owner.job), owner)
        }
        // The numbers of another Slurm's jobs mean nothing to this one.
        Some((Answer::Active { .. } | Answer::Silent { .. }, owner)) => (LATER.to_owned(), owner),
        _ => {
            return Ok(Gate::Closed(format!("{missing}, which {step} needs, has not finished and no job works on it")));
        }
    };
    let waits = |job: &&JobRecord| job.kind == JobKind::Continuation && job.cluster == plan.cluster;
    let num_waits = submission::jobs(&plan.submit_dir)?.iter().filter(waits).count();
    if num_waits >= plan.max_restarts as usize {
        let limit = plan.max_restarts;
        return Ok(Gate::Closed(format!(
            "{owner} still works on {missing}, and submit.max_restarts={limit} is reached"
        )));
    }
    let submitted = submission::submit(plan, &slurm, &[option])?;
    submission::record(plan, &submitted, JobKind::Continuation)?;
    Ok(Gate::Later(format!("{owner} still works on {missing}; job {} waits for it", submitted.id)))
}
