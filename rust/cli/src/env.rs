//! Every environment variable that this program reads or sets. Those of the crates below are in `hlrp_track::env` and, for the folder of
//! the configuration tree, in `hlrp_schema::PROJECT`.

/// CPU threads of tensor work.
pub(crate) const OMP_NUM_THREADS: &str = "OMP_NUM_THREADS";
/// How OpenMP's threads wait for each other.
pub(crate) const OMP_WAIT_POLICY: &str = "OMP_WAIT_POLICY";
/// How long a thread of GNU's OpenMP spins before it sleeps.
pub(crate) const GOMP_SPINCOUNT: &str = "GOMP_SPINCOUNT";
/// Whether anything may be fetched from the Hugging Face Hub.
pub(crate) const HF_HUB_OFFLINE: &str = "HF_HUB_OFFLINE";
/// Whether Python buffers its output.
pub(crate) const PYTHONUNBUFFERED: &str = "PYTHONUNBUFFERED";
/// Folder of LIBERO's configuration.
pub(crate) const LIBERO_CONFIG_PATH: &str = "LIBERO_CONFIG_PATH";
/// The user's home.
pub(crate) const HOME: &str = "HOME";
/// Folder of temporary files.
pub(crate) const TMPDIR: &str = "TMPDIR";

/// When the Slurm job ends, in seconds since 1970.
pub(crate) const SLURM_JOB_END_TIME: &str = "SLURM_JOB_END_TIME";
/// GPUs of the Slurm job on this machine.
pub(crate) const SLURM_GPUS_ON_NODE: &str = "SLURM_GPUS_ON_NODE";
/// GPUs that CUDA programs see.
pub(crate) const CUDA_VISIBLE_DEVICES: &str = "CUDA_VISIBLE_DEVICES";

/// Whether the user has set a variable.
pub(crate) fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some()
}
