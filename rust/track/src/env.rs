//! Every environment variable that this crate reads.

/// Slurm's job id; present inside an allocation only.
pub const SLURM_JOB_ID: &str = "SLURM_JOB_ID";
/// Slurm's configuration file, where it is not at its usual place.
pub const SLURM_CONF: &str = "SLURM_CONF";
/// Name of the Slurm cluster.
pub const SLURM_CLUSTER_NAME: &str = "SLURM_CLUSTER_NAME";
/// Partition of the Slurm job.
pub const SLURM_JOB_PARTITION: &str = "SLURM_JOB_PARTITION";
/// Nodes of the Slurm job.
pub const SLURM_JOB_NODELIST: &str = "SLURM_JOB_NODELIST";
/// Where programs are looked for.
pub const PATH: &str = "PATH";

/// The variable's value; nothing when it is unset, empty or not Unicode.
pub fn get(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
