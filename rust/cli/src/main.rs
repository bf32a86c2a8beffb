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
use std::{ffi::OsString, process::ExitCode};

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
        Command::AnalyzeLaq { arguments } => of_laq("analyze-laq", arguments),
        Command::ImportLaq { arguments } => of_laq("import-laq", arguments),
        Command::ExportLaq { arguments } => of_laq("export-laq", arguments),
        Command::Label { arguments } => of_laq("label", arguments),
        Command::TrainVla { arguments } => programs::exec(&programs::TRAIN_VLA, &arguments),
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

/// A command of the program of stage 1.
fn of_laq(command: &str, arguments: Vec<OsString>) -> anyhow::Result<ExitCode> {
    let arguments: Vec<_> = std::iter::once(command.into()).chain(arguments).collect();
    programs::exec(&programs::TRAIN_LAQ, &arguments)
}
