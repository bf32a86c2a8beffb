//! The short job that checks the node before the run.

use super::plans::Submission;
use anyhow::Result;
use hlrp_slurm::{
    client::{Slurm, Submitted},
    plan::JobPlan,
    script::preflight_script,
    submission::{self, JobKind},
};
use hlrp_track::fs::write_atomic;
use std::path::PathBuf;

/// The jobs before which a check is queued: the first of each run on each cluster, where checks are asked for.
pub(super) fn of(submission: &Submission) -> impl Iterator<Item = &JobPlan> {
    let is_asked_for = submission.basics.submit.preflight;
    let runs = submission.runs.iter().filter(move |_| is_asked_for);
    runs.flat_map(|run| run.jobs.iter().filter_map(|jobs| jobs.first()))
}

/// Where the script of the check before `plan` is kept, and its text.
pub(super) fn script(plan: &JobPlan) -> (PathBuf, String) {
    (plan.preflight_script_path(), preflight_script(&plan.preflight()))
}

/// Queues the check before `plan`.
///
/// # Errors
/// Slurm refuses or does not answer.
pub(super) fn submit(plan: &JobPlan, slurm: &Slurm) -> Result<Submitted> {
    let (path, text) = script(plan);
    write_atomic(&path, text)?;
    let former = submission::ids(&plan.submit_dir)?;
    let submitted = submission::submit_script(&path, &plan.preflight().comment(), slurm, &[], &former)?;
    submission::record(plan, &submitted, JobKind::Preflight)?;
    Ok(submitted)
}
