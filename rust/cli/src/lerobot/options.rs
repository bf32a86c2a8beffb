//! The command lines; their comments are the help.

use super::resume::{CONFIG, changeable};
use clap::Args;
use hlrp_config::{Composed, Problem, from_resolved};
use hlrp_schema::{ConfigArgs, PROJECT};
use std::path::PathBuf;

const TRAIN_EXAMPLES: &str = "\
Examples:
  hlrp train-lerobot experiment=lerobot_tiny                                a minute on two CPU cores
  hlrp train-lerobot experiment=lerobot_tiny --dry-run                      the command that would run
  hlrp train-lerobot experiment=lerobot_smolvla_shared_tiny lerobot.policy.stage2_artifact=runs/<stage 2>/artifacts/best
  hlrp train-lerobot experiment=lerobot_tiny lerobot.policy_type=null lerobot.policy_path=runs/<stage 3>   train further
  hlrp train-lerobot experiment=lerobot_tiny lerobot.num_processes=2        data-parallel, through accelerate
  hlrp train-lerobot --resume runs/2026-01-31_12-00-00_lerobot_tiny

Every field of a policy, dataset or simulator goes to LeRobot under its own name:
  +lerobot.policy.n_action_steps=8  +lerobot.dataset.video_backend=pyav  +lerobot.env_settings.obs_type=pixels

Exit codes: 0 done, 2 invalid setting, 75 interrupted by a signal with a checkpoint to resume from,
else 1 or what lerobot-train ended with.";

const ROLLOUT_EXAMPLES: &str = "\
Examples:
  hlrp rollout-lerobot experiment=rollout_tiny lerobot_eval.policy_path=runs/<stage 3>
  hlrp rollout-lerobot experiment=rollout_tiny lerobot_eval.policy_path=runs/<stage 3> lerobot_eval.env_type=metaworld lerobot_eval.env_task=push-v3 ~lerobot_eval.env_settings.episode_length
  hlrp rollout-lerobot experiment=lerobot_hlrp_smolvla_shared_rollout lerobot_eval.policy_path=runs/<stage 3> --dry-run

Image sizes, cameras and control mode that the policy was trained with come from its checkpoint where they are not set.
It ends with a table: successes of each task with their 95 % interval, and the videos.

Exit codes: 0 done, 2 invalid setting, else 1 or what lerobot-eval ended with.";

/// Options of `hlrp train-lerobot`.
#[derive(Debug, Args)]
#[command(after_help = TRAIN_EXAMPLES)]
pub(crate) struct TrainOptions {
    #[command(flatten)]
    config: ConfigArgs,
    #[arg(long, value_name = "RUN_DIR", conflicts_with_all = ["config_dir"], help = resume_help())]
    pub(super) resume: Option<PathBuf>,
    #[command(flatten)]
    pub(super) common: CommonOptions,
}

fn resume_help() -> String {
    format!("Continue the run in this directory from LeRobot's last checkpoint; overrides can change, {}", changeable())
}

/// Options of `hlrp rollout-lerobot`.
#[derive(Debug, Args)]
#[command(after_help = ROLLOUT_EXAMPLES)]
pub(crate) struct RolloutOptions {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    #[command(flatten)]
    pub(super) common: CommonOptions,
}

/// Options of both.
#[derive(Debug, Args)]
pub(super) struct CommonOptions {
    /// Print the command that would run, as a shell command, and stop; nothing is written or installed.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Print the resolved configuration and stop.
    #[arg(long)]
    pub(super) print_config: bool,
    /// Run even if this host looks like a login node of a cluster.
    #[arg(long)]
    pub(super) allow_login_node: bool,
}

impl TrainOptions {
    /// The configuration: composed, or that of the run to continue.
    ///
    /// # Errors
    /// An error in the tree or in an override.
    pub(super) fn compose(&self) -> Result<Composed, Problem> {
        match &self.resume {
            Some(run_dir) => from_resolved(&PROJECT, &run_dir.join(CONFIG), &self.config.overrides),
            None => self.config.compose(),
        }
    }
}
