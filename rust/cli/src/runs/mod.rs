//! `hlrp runs`: finds, compares and explains runs by what they recorded in their directories.
//!
//! | question | module |
//! |---|---|
//! | How does a run get to W&B later? | [`sync`] |

mod sync;

use anyhow::Result;
use clap::Subcommand;
use std::process::ExitCode;

/// Find, compare and explain runs.
#[derive(Debug, Subcommand)]
pub(crate) enum RunsCommand {
    /// Upload runs to W&B that were recorded offline or during an outage, also while they go on.
    Sync(sync::SyncOptions),
}

/// Runs a command and prints its result to standard output.
///
/// # Errors
/// A folder that is not a run, a damaged file, an unknown metric or key.
pub(crate) fn run(command: &RunsCommand) -> Result<ExitCode> {
    match command {
        RunsCommand::Sync(options) => sync::sync(options),
    }
}
