//! A training program, from the command line to the exit code. A stage has its configuration, its task and its data
//! ([`Program`]); everything else is the same for every stage.

mod args;
mod env;
mod launch;
mod nodes;
mod processes;
mod rendezvous;
mod report;
mod same_for_all;
mod version;

pub use launch::Setup;

use crate::{data::TrainingData, task::Task};
use args::Arguments;
use clap::Parser;
use hlrp_config::HintOf;
use hlrp_schema::TrainingRun;
use hlrp_track::exit_code;
use std::{path::PathBuf, process::ExitCode};

/// What a stage brings to its training program.
pub trait Program {
    /// Its configuration.
    type Config: TrainingRun;
    /// Its model under training.
    type Task: Task;
    /// Its data.
    type Data: TrainingData;

    /// Name of the executable, such as `hlrp-train-laq`.
    const NAME: &'static str;
    /// How users start it, such as `hlrp train-laq`.
    const COMMAND: &'static str;
    /// One or two sentences for the help.
    const ABOUT: &'static str;
    /// The commit that the program is built from, if it is known.
    const COMMIT: Option<&'static str>;
    /// Command lines for the help.
    const EXAMPLES: &'static str;
    /// The error types whose hints are printed.
    const HINTS: &'static [HintOf];

    /// Builds model and data. The random state is that of the seed, and nothing may be written.
    ///
    /// # Errors
    /// Anything that would keep the run from training.
    fn prepare(config: &Self::Config, setup: &Setup) -> anyhow::Result<(Self::Task, Self::Data)>;

    /// Checkpoints and folders that the run starts from besides those of section `training`: role and path.
    fn inputs(config: &Self::Config) -> Vec<(&'static str, PathBuf)>;

    /// Looks for what the stage needs besides the datasets, before anything is built.
    ///
    /// # Errors
    /// [`hlrp_config::Problem`] with the key of what is missing.
    fn preflight(_config: &Self::Config) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Runs what the program does besides training: a command whose name is the first argument. Its exit codes are those of
/// [`hlrp_track::exit_code`].
pub fn command<A: Parser>(hints: &[HintOf], command: impl FnOnce(A) -> anyhow::Result<()>) -> ExitCode {
    let arguments = std::env::args_os().enumerate().filter(|(index, _)| *index != 1).map(|(_, argument)| argument);
    let parsed = A::try_parse_from(arguments).unwrap_or_else(|error| error.exit());
    match command(parsed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            hlrp_track::console::report_error(error.as_ref(), hints);
            ExitCode::from(exit_code::of(error.as_ref(), crate::EXIT_CODES))
        }
    }
}

/// Runs the program; its exit codes are those of [`hlrp_track::exit_code`].
pub fn main<P: Program>() -> ExitCode {
    let arguments = Arguments::parse_for::<P>();
    if arguments.version_json {
        hlrp_track::console::print(&version::to_json().to_string());
        return ExitCode::SUCCESS;
    }
    ExitCode::from(launch::run::<P>(&arguments))
}
