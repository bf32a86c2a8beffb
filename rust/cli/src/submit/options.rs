//! The command line; its comments are the help.

use crate::remote::RemoteArgs;
use clap::{Args, Subcommand};
use hlrp_schema::ConfigArgs;
use std::{path::PathBuf, time::Duration};

const EXAMPLES: &str = "\
Examples:
  hlrp submit experiment=laq_cluster cluster=lrz_x100                       one job
  hlrp submit experiment=laq_cluster cluster=lrz_x100 submit.dry_run=true   its script and plan; nothing is written
  hlrp submit experiment=laq_cluster 'submit.race=[lrz_x100,mcml_x100]'     on two clusters: the first start trains, the other is cancelled
  hlrp submit experiment=laq_lr_sweep cluster=lrz_x100                      a sweep: one job for each run
  hlrp submit experiment=laq_lr_sweep cluster=lrz_x100 submit.array=true submit.array_limit=2
  hlrp submit experiment=pipeline_local cluster=mcml_h100                   a pipeline: one job for each step, each after the one before
  hlrp submit experiment=laq_tiny                                           cluster=local_dev: here, one run after the other
  hlrp submit acceptance cluster=mcml_h100                                  check a site before the first run
  hlrp submit image-import docker://HOST#IMAGE:TAG cluster=lrz_cpu_only     a container image, on a compute node
  hlrp submit --resume runs/2026-01-31_12-00-00_laq_cluster                 queue a run again that was stopped, or a submission that was cut off

A job composes its configuration from a copy of the tree in RUN_DIR/submit/config: what is edited later does not reach a job that waits.
RUN_DIR/submit also has the scripts, the plans, the ids of the jobs and the claim that decides which of them trains. A job that meets its
time limit saves, ends, and is queued again until the run is finished. `hlrp jobs` watches, shows and cancels jobs.

Exit codes: 0 queued (or printed), 1 Slurm refused or did not answer, 2 invalid setting.";

/// Options of `hlrp submit`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct SubmitOptions {
    #[command(subcommand)]
    pub(super) other: Option<OtherJob>,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    /// Queue the run in this directory again, or what is missing of its submission, with the scripts that it has.
    #[arg(long, value_name = "RUN_DIR", conflicts_with_all = ["config_dir"])]
    pub(super) resume: Option<PathBuf>,
    #[command(flatten)]
    pub(super) reach: Reach,
}

/// How Slurm is reached: of every kind of submission.
#[derive(Debug, Args)]
pub(super) struct Reach {
    /// Seconds that a command of Slurm may take; sbatch may take twice as long.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
}

impl Reach {
    /// How long a command of Slurm may take.
    pub(super) fn time_limit(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}

impl SubmitOptions {
    /// Configuration and reach of whatever is submitted.
    pub(super) fn common(&self) -> (&ConfigArgs, &Reach) {
        match &self.other {
            Some(OtherJob::ImageImport { config, reach, .. } | OtherJob::Acceptance { config, reach }) => {
                (config, reach)
            }
            None => (&self.config, &self.reach),
        }
    }
}

/// Jobs that train nothing.
#[derive(Debug, Subcommand)]
pub(super) enum OtherJob {
    /// Import a container image on a compute node: docker://…, podman://… or oci-archive:… becomes a dated .sqsh file.
    #[command(
        after_help = "Example: hlrp submit image-import docker://ghcr.io/you/hlrp-train:1 --name hlrp-train cluster=lrz_cpu_only"
    )]
    ImageImport {
        /// The image.
        source: String,
        /// Name of the file; the time is added.
        #[arg(long, default_value = "hlrp")]
        name: String,
        #[command(flatten)]
        config: ConfigArgs,
        #[command(flatten)]
        reach: Reach,
    },
    /// Check a site with a few short jobs: container, Slurm from compute nodes, claim, credentials, GPUs, rendering, space.
    #[command(after_help = "Example: hlrp submit acceptance cluster=mcml_h100\nThe report is RUN_DIR/acceptance.md.")]
    Acceptance {
        #[command(flatten)]
        config: ConfigArgs,
        #[command(flatten)]
        reach: Reach,
    },
}
