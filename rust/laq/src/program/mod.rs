//! The training program of stage 1, from the command line to the exit code.

mod args;
mod closing;
mod train;
mod version;

use args::Arguments;
use clap::Parser;
use hlrp_config::ConfigError;
use hlrp_train::{EXIT_INTERRUPTED, Outcome};
use std::process::ExitCode;

const EXIT_ERROR: u8 = 1;
const EXIT_CONFIG: u8 = 2;

/// Runs the program. Exit codes: 0 done, 1 error, 2 configuration, 75 interrupted with a checkpoint.
pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.version_json {
        hlrp_track::console::print(&version::to_json().to_string());
        return ExitCode::SUCCESS;
    }
    match train::run(&arguments) {
        Ok(Some(Outcome::Interrupted(_))) => ExitCode::from(u8::try_from(EXIT_INTERRUPTED).unwrap_or(EXIT_ERROR)),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            hlrp_track::console::report_error(error.as_ref());
            ExitCode::from(if error.is::<ConfigError>() { EXIT_CONFIG } else { EXIT_ERROR })
        }
    }
}
