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
/// The user's home.
pub const HOME: &str = "HOME";
/// The netrc file, where it is not `~/.netrc`.
pub const NETRC: &str = "NETRC";
/// API key of W&B; never shown.
pub const WANDB_API_KEY: &str = "WANDB_API_KEY";
/// Server of W&B's API.
pub const WANDB_BASE_URL: &str = "WANDB_BASE_URL";
/// Server of W&B's pages.
pub const WANDB_APP_URL: &str = "WANDB_APP_URL";
/// online, offline or disabled.
pub const WANDB_MODE: &str = "WANDB_MODE";
/// Switches W&B off; Hugging Face's name for it.
pub const WANDB_DISABLED: &str = "WANDB_DISABLED";
/// Project of the run.
pub const WANDB_PROJECT: &str = "WANDB_PROJECT";
/// User or team of the run.
pub const WANDB_ENTITY: &str = "WANDB_ENTITY";
/// Id of the run.
pub const WANDB_RUN_ID: &str = "WANDB_RUN_ID";
/// allow, must or never: whether a run of the given id may exist.
pub const WANDB_RESUME: &str = "WANDB_RESUME";
/// Name of the run.
pub const WANDB_NAME: &str = "WANDB_NAME";
/// Group of the run.
pub const WANDB_RUN_GROUP: &str = "WANDB_RUN_GROUP";
/// Job type of the run.
pub const WANDB_JOB_TYPE: &str = "WANDB_JOB_TYPE";
/// Tags of the run, separated by commas.
pub const WANDB_TAGS: &str = "WANDB_TAGS";
/// Notes of the run.
pub const WANDB_NOTES: &str = "WANDB_NOTES";
/// Parent of the folder `wandb`.
pub const WANDB_DIR: &str = "WANDB_DIR";
/// Folder of W&B's settings file.
pub const WANDB_CONFIG_DIR: &str = "WANDB_CONFIG_DIR";
/// Host name that the run shows.
pub const WANDB_HOST: &str = "WANDB_HOST";
/// `off`: console lines are not recorded.
pub const WANDB_CONSOLE: &str = "WANDB_CONSOLE";
/// User that the run belongs to, for a service account.
pub const WANDB_USERNAME: &str = "WANDB_USERNAME";
/// As the user name, by address.
pub const WANDB_USER_EMAIL: &str = "WANDB_USER_EMAIL";
/// Nothing about the repository is recorded.
pub const WANDB_DISABLE_GIT: &str = "WANDB_DISABLE_GIT";
/// Commit that the run shows.
pub const WANDB_GIT_COMMIT: &str = "WANDB_GIT_COMMIT";
/// Repository that the run shows.
pub const WANDB_GIT_REMOTE_URL: &str = "WANDB_GIT_REMOTE_URL";
/// Seconds to wait for an answer.
pub const WANDB_HTTP_TIMEOUT: &str = "WANDB_HTTP_TIMEOUT";
/// Seconds to wait for the service before a training starts.
pub const WANDB_INIT_TIMEOUT: &str = "WANDB_INIT_TIMEOUT";
/// Seconds that the upload of a file may take.
pub const WANDB_FILE_PUSHER_TIMEOUT: &str = "WANDB_FILE_PUSHER_TIMEOUT";
/// Patterns of files that are not uploaded, separated by commas.
pub const WANDB_IGNORE_GLOBS: &str = "WANDB_IGNORE_GLOBS";
/// Nothing is said about W&B but errors.
pub const WANDB_SILENT: &str = "WANDB_SILENT";
/// Nothing is said about W&B but warnings and errors.
pub const WANDB_QUIET: &str = "WANDB_QUIET";
/// No system metrics.
pub const WANDB_X_DISABLE_STATS: &str = "WANDB_X_DISABLE_STATS";
/// Seconds between samples of system metrics.
pub const WANDB_X_STATS_SAMPLING_INTERVAL: &str = "WANDB_X_STATS_SAMPLING_INTERVAL";

/// Seconds between two requests of the official client with data.
pub const WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL: &str = "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL";

/// The variable's value; nothing when it is unset, empty or not Unicode.
pub fn get(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
