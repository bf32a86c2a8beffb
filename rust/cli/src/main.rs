//! The command that users type. It knows no tensor and no video: the programs that do are started in its place.

mod args;
mod child;
mod config;
mod disk;
mod doctor;
mod env;
mod error;
mod job;
mod jobs;
mod lerobot;
mod pipeline;
mod programs;
mod remote;
mod reproduce;
mod runs;
mod submit;
mod whereabouts;

use args::{Arguments, Command};
use clap::CommandFactory;
use error::CommandError;
use hlrp_config::{HintOf, Problem, hint_of};
use hlrp_schema::parse_command_line;
use hlrp_slurm::{SubmitError, client::SlurmError};
use hlrp_track::{TrackError, console, exit_code};
use std::process::ExitCode;

/// The errors of this program whose hints are printed.
const HINTS: &[HintOf] = &[
    hint_of::<Problem>,
    hint_of::<TrackError>,
    hint_of::<CommandError>,
    hint_of::<SubmitError>,
    hint_of::<SlurmError>,
];

fn main() -> ExitCode {
    let result = match parse_command_line::<Arguments>(Arguments::command()).command {
        Command::TrainLaq { arguments } => programs::exec(&programs::TRAIN_LAQ, &arguments),
        Command::AnalyzeLaq { arguments } => programs::exec_command(&programs::TRAIN_LAQ, "analyze-laq", arguments),
        Command::ImportLaq { arguments } => programs::exec_command(&programs::TRAIN_LAQ, "import-laq", arguments),
        Command::ExportLaq { arguments } => programs::exec_command(&programs::TRAIN_LAQ, "export-laq", arguments),
        Command::Label { arguments } => programs::exec_command(&programs::TRAIN_LAQ, "label", arguments),
        Command::TrainVla { arguments } => programs::exec(&programs::TRAIN_VLA, &arguments),
        Command::ImportVla { arguments } => programs::exec_command(&programs::TRAIN_VLA, "import-vla", arguments),
        Command::TrainLerobot(options) => lerobot::train(&options),
        Command::RolloutLerobot(options) => lerobot::rollout(&options),
        Command::Pipeline(options) => pipeline::pipeline(&options),
        Command::Submit(options) => submit::submit(&options),
        Command::Job(command) => job::run(&command),
        Command::Jobs(command) => jobs::run(&command),
        Command::Data { arguments } => programs::exec(&programs::DATA, &arguments),
        Command::Config(command) => config::run(&command).map_err(anyhow::Error::from),
        Command::Reproduce(options) => reproduce::reproduce(&options),
        Command::Runs(command) => runs::run(&command),
        Command::Doctor(options) => doctor::run(&options),
        Command::Where(options) => whereabouts::run(&options),
    };
    result.unwrap_or_else(|error| {
        console::report_error(error.as_ref(), HINTS);
        ExitCode::from(exit_code::of(error.as_ref(), &[]))
    })
}
