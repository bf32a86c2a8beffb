//! The short job that checks the node before the run.

use anyhow::Result;
use hlrp_slurm::{
    client::{Slurm, Submitted},
    plan::JobPlan,
    script::preflight_script,
    submission::{self, JobKind},
};
use hlrp_track::fs::write_atomic;

/// Queues it.
///
/// # Errors
/// Slurm refuses or does not answer.
pub(super) fn submit(plan: &JobPlan, slurm: &Slurm) -> Result<Submitted> {
    let preflight = plan.preflight();
    let path = plan.preflight_script_path();
    write_atomic(&path, preflight_script(&preflight))?;
    let former = submission::ids(&plan.submit_dir)?;
    let submitted = submission::submit_script(&path, &preflight.comment(), slurm, &[], &former)?;
    submission::record(plan, &submitted, JobKind::Preflight)?;
    Ok(submitted)
}
