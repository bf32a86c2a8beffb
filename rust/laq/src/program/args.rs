//! The command line.

use clap::Parser;
use hlrp_config::{Composed, ConfigArgs, ConfigError, from_resolved};
use std::path::PathBuf;

/// Train the latent action model (stage 1): discrete codes that say what changed between two frames of robot video.
#[derive(Parser)]
#[command(name = "hlrp-train-laq", version, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Continue the run in this directory from its last checkpoint; further words change its configuration.
    #[arg(long, value_name = "RUN_DIR", conflicts_with_all = ["config_dir"])]
    pub(crate) resume: Option<PathBuf>,
    /// Print the resolved configuration and stop.
    #[arg(long)]
    pub(crate) print_config: bool,
    /// Train although this looks like the login node of a cluster.
    #[arg(long)]
    pub(crate) allow_login_node: bool,
    /// Print versions as JSON and stop.
    #[arg(long, hide = true)]
    pub(crate) version_json: bool,
}

const EXAMPLES: &str = "\
Examples:
  hlrp train-laq experiment=laq_tiny                       minutes on two CPU cores, on the data in the repository
  hlrp train-laq experiment=laq_tiny training.optimizer.lr=3e-4 seed=7
  hlrp train-laq experiment=laq_pixel data.sources.metaworld_mt5.root=/data/mine
  hlrp train-laq --resume runs/2026-01-31_12-00-00_laq_tiny

Exit codes: 0 done, 1 error, 2 mistake in the configuration, 75 interrupted by a signal with a checkpoint to resume from.";

impl Arguments {
    /// The configuration: composed, or that of the run to continue.
    ///
    /// # Errors
    /// A mistake in the tree or in an override.
    pub(crate) fn compose(&self) -> Result<Composed, ConfigError> {
        match &self.resume {
            Some(run_dir) => from_resolved(&run_dir.join("config.yaml"), &self.config.overrides),
            None => self.config.compose(),
        }
    }
}
