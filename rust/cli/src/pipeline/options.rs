//! The command line; its comments are the help.

use clap::Args;
use hlrp_schema::ConfigArgs;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  hlrp pipeline experiment=pipeline_tiny                          from video to rollouts, ten minutes on two CPU cores
  hlrp pipeline experiment=pipeline_tiny --dry-run                the commands that would run
  hlrp pipeline experiment=pipeline_tiny seed=7 device=cuda       for every step
  hlrp pipeline experiment=pipeline_tiny 'pipeline.vla.overrides=[\"training.max_steps=100\"]'    for one of them
  hlrp pipeline experiment=study/few_labels                       many runs that differ in what is studied, and a table of them
  hlrp pipeline --resume runs/2026-01-31_12-00-00_pipeline_tiny

Each step is a command with a run directory of its own inside that of the pipeline: 1_laq, 2_vla, 3_lerobot, 4_rollout_<name>.
A pipeline that was stopped, in whatever way, continues where it was: with --resume, or when the same logging.run_dir is given
again. Steps that are done are not repeated. --config-dir and --config-name hold for every step, and are kept by --resume.

Exit codes: 0 done, 2 invalid setting, 75 interrupted by a signal, else what the failed step ended with.";

/// Options of `hlrp pipeline`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PipelineOptions {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    /// Continue the pipeline in this directory.
    #[arg(long, value_name = "RUN_DIR")]
    pub(super) resume: Option<PathBuf>,
    /// Print the commands that would run, as shell commands, and stop; nothing is written.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Run this step alone, such as 2_vla; those before it must be done. The last one summarizes the pipeline.
    #[arg(long, value_name = "STEP")]
    pub(super) step: Option<String>,
    /// Run even if this host looks like a login node of a cluster.
    #[arg(long)]
    pub(super) allow_login_node: bool,
}
