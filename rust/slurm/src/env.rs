//! Every environment variable of a job that this crate reads.

/// Number of a process of the step, from 0.
pub(crate) const SLURM_PROCID: &str = "SLURM_PROCID";
/// How often the job was queued again; not set in its first start.
pub(crate) const SLURM_RESTART_COUNT: &str = "SLURM_RESTART_COUNT";
/// Id of the array that the job is a member of.
pub(crate) const SLURM_ARRAY_JOB_ID: &str = "SLURM_ARRAY_JOB_ID";
/// Number of the member.
pub(crate) const SLURM_ARRAY_TASK_ID: &str = "SLURM_ARRAY_TASK_ID";
