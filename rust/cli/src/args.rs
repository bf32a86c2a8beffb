//! The command line; its comments are the help.

use crate::config::ConfigCommand;
use crate::{
    doctor::DoctorOptions,
    job::JobCommand,
    jobs::JobsCommand,
    lerobot::{RolloutOptions, TrainOptions},
    pipeline::PipelineOptions,
    reproduce::ReproduceOptions,
    runs::RunsCommand,
    submit::SubmitOptions,
    whereabouts::WhereOptions,
};
use clap::{Parser, Subcommand};
use std::ffi::OsString;

const EXAMPLES: &str = "\
Examples:
  hlrp doctor                                              what can run on this machine
  hlrp where experiment=laq_pixel                          what this machine is, and where an experiment belongs
  hlrp data show tests/data/metaworld_mt5                  what a dataset contains
  hlrp train-laq experiment=laq_tiny                       train in minutes on two CPU cores
  hlrp train-laq experiment=laq_pixel data.loader.batch_size=128 training.optimizer.lr=2e-4
  hlrp train-laq --resume runs/2026-01-31_12-00-00_laq_pixel
  hlrp pipeline experiment=pipeline_tiny                   all three stages and rollouts, in ten minutes
  hlrp submit experiment=laq_cluster cluster=lrz_x100      a run as a Slurm job
  hlrp jobs watch                                          the states of your Slurm jobs, as they change
  hlrp runs list                                           which runs there are
  hlrp config explain training.optimizer.lr                which file set a value

Configuration: every default lives in config/. `group=option` chooses a file, `a.b=1` changes a value.";

/// Pretrain robot policies from video: latent actions, then policies that predict them.
#[derive(Debug, Parser)]
#[command(name = "hlrp", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a latent action model (stage 1) from a LeRobot dataset.
    #[command(disable_help_flag = true)]
    TrainLaq {
        /// Passed on to hlrp-train-laq as they are; `hlrp train-laq --help` explains them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
        arguments: Vec<OsString>,
    },
    /// Report what the codes of a latent action model say about motion, actions and datasets.
    #[command(disable_help_flag = true)]
    AnalyzeLaq {
        /// Passed on to hlrp-train-laq as they are; `hlrp analyze-laq --help` explains them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
        arguments: Vec<OsString>,
    },
    /// Read weights of the Python predecessor into a checkpoint of stage 1.
    #[command(disable_help_flag = true)]
    ImportLaq {
        /// Passed on to hlrp-train-laq as they are; `hlrp import-laq --help` explains them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
        arguments: Vec<OsString>,
    },
    /// Write the encoder and the quantizer of a checkpoint of stage 1 alone.
    #[command(disable_help_flag = true)]
    ExportLaq {
        /// Passed on to hlrp-train-laq as they are; `hlrp export-laq --help` explains them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
        arguments: Vec<OsString>,
    },
    /// Write latent actions of every frame into a copy of a dataset.
    #[command(disable_help_flag = true)]
    Label {
        /// Passed on to hlrp-train-laq as they are; `hlrp label --help` explains them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
        arguments: Vec<OsString>,
    },
    /// Train a policy (stage 2) that predicts latent actions, real actions, or both.
    #[command(disable_help_flag = true)]
    TrainVla {
        /// Passed on to hlrp-train-vla as they are; `hlrp train-vla --help` explains them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
        arguments: Vec<OsString>,
    },
    /// Read a stage 2 artifact of the Python predecessor into an artifact of ours.
    #[command(disable_help_flag = true)]
    ImportVla {
        /// Passed on to hlrp-train-vla as they are; `hlrp import-vla --help` explains them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
        arguments: Vec<OsString>,
    },
    /// Fine-tune a policy (stage 3) with LeRobot's own trainer.
    TrainLerobot(TrainOptions),
    /// Evaluate a policy in a simulator with LeRobot's own evaluator, and count its successes.
    RolloutLerobot(RolloutOptions),
    /// Run all stages in turn, from video to rollouts; continues after an interruption.
    Pipeline(PipelineOptions),
    /// Queue runs as Slurm jobs: sweeps, races between clusters, pipelines; or run them here, one after the other.
    Submit(SubmitOptions),
    /// What batch scripts call on their node.
    #[command(subcommand, hide = true)]
    Job(JobCommand),
    /// Watch, read and cancel Slurm jobs.
    #[command(subcommand)]
    Jobs(JobsCommand),
    /// Inspect or check a dataset; download a dataset or a model.
    #[command(disable_help_flag = true)]
    Data {
        /// Passed on to hlrp-data as they are; `hlrp data --help` explains them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
        arguments: Vec<OsString>,
    },
    /// Inspect the configuration: groups and options, the resolved values, and what set each of them.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Find, compare and explain runs.
    #[command(subcommand)]
    Runs(RunsCommand),
    /// Run a run again from its records, and say whether the same comes out: match, drift or cannot.
    Reproduce(ReproduceOptions),
    /// Check this machine: hardware, installed programs, what can run here.
    Doctor(DoctorOptions),
    /// Show where this is: host, allocation, resources, free space, the cluster option that fits, and where an experiment belongs.
    Where(WhereOptions),
}
