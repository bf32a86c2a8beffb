//! Every environment variable that a training program reads or sets. Those of the crates below are in `hlrp_track::env`.

/// Index of this process among those of the run; torchrun's name.
pub(super) const RANK: &str = "RANK";
/// Number of processes of the run.
pub(super) const WORLD_SIZE: &str = "WORLD_SIZE";
/// Index of this process among those of the machine.
pub(super) const LOCAL_RANK: &str = "LOCAL_RANK";
/// Number of processes of the machine.
pub(super) const LOCAL_WORLD_SIZE: &str = "LOCAL_WORLD_SIZE";
/// Machine where the processes meet.
pub(super) const MASTER_ADDR: &str = "MASTER_ADDR";
/// Port where the processes meet.
pub(super) const MASTER_PORT: &str = "MASTER_PORT";
/// `True` where torchrun keeps the store itself.
pub(super) const TORCHELASTIC_USE_AGENT_STORE: &str = "TORCHELASTIC_USE_AGENT_STORE";
/// How often torchrun has started the processes again.
pub(super) const TORCHELASTIC_RESTART_COUNT: &str = "TORCHELASTIC_RESTART_COUNT";
/// File where the processes meet that `num_processes` starts.
pub(super) const HLRP_STORE: &str = "HLRP_STORE";
/// Id of the process that started them.
pub(super) const HLRP_LAUNCHER: &str = "HLRP_LAUNCHER";
/// File where they name those of them that are missing.
pub(super) const HLRP_MISSING: &str = "HLRP_MISSING";
/// Network interface for exchanges in main memory; Gloo's name.
pub(super) const GLOO_SOCKET_IFNAME: &str = "GLOO_SOCKET_IFNAME";

/// Number of tasks of the `srun` step; a batch script alone has none.
pub(super) const SLURM_STEP_NUM_TASKS: &str = "SLURM_STEP_NUM_TASKS";
/// Machines of the step.
pub(super) const SLURM_STEP_NODELIST: &str = "SLURM_STEP_NODELIST";
/// Number of machines of the step.
pub(super) const SLURM_STEP_NUM_NODES: &str = "SLURM_STEP_NUM_NODES";
/// Tasks of each machine of the step.
pub(super) const SLURM_STEP_TASKS_PER_NODE: &str = "SLURM_STEP_TASKS_PER_NODE";
/// Number of the step in its job.
pub(super) const SLURM_STEP_ID: &str = "SLURM_STEP_ID";
/// Index of this task in the step.
pub(super) const SLURM_PROCID: &str = "SLURM_PROCID";
/// Index of this task on the machine.
pub(super) const SLURM_LOCALID: &str = "SLURM_LOCALID";
/// Cores of each task.
pub(super) const SLURM_CPUS_PER_TASK: &str = "SLURM_CPUS_PER_TASK";
