//! `hlrp runs`: finds, compares and explains runs by what they recorded in their directories.
//!
//! | question | module |
//! |---|---|
//! | Which folders are runs? | [`find`] |
//! | What does a run record? | [`record`] |
//! | Which settings tell runs apart? | [`settings`] |
//! | Which value of a metric counts? | [`values`] |
//! | How do runs compare, over seeds too? | [`groups`] |
//! | Which runs are there? | [`list`] |
//! | What does one run record? | [`show`] |
//! | What are their results? | [`table`] |
//! | How do their curves compare? | [`plot`] |
//! | What differs between two of them? | [`compare`] |
//! | What does a person write about one? | [`note`], found through [`index`] |
//! | How is a run going? | [`watch`] |
//! | All of this on one page? | [`report`] |
//! | How does a run get to W&B later? | [`sync`] |

mod compare;
mod find;
mod groups;
mod index;
mod list;
mod note;
mod plot;
mod record;
mod report;
mod settings;
mod show;
mod sync;
mod table;
mod values;
mod watch;

pub(crate) use find::one_run;
pub(crate) use record::{Run, images_in, last_images};
pub(crate) use values::Statistics;

use anyhow::Result;
use clap::Subcommand;
use hlrp_track::console;
use std::process::ExitCode;
use tracing::level_filters::LevelFilter;

/// Find, compare and explain runs.
#[derive(Debug, Subcommand)]
pub(crate) enum RunsCommand {
    /// List runs, newest first: stage, status, steps, score, age.
    List(list::ListOptions),
    /// Show what one run records: status, versions, data, inputs, outputs, results.
    Show(show::ShowOptions),
    /// Print one row for each run: settings and metrics, mean and deviation over seeds, the best marked.
    Table(table::TableOptions),
    /// Draw curves of several runs into one PNG.
    Plot(plot::PlotOptions),
    /// Show the settings in which two runs differ, beside their metrics.
    Compare(compare::CompareOptions),
    /// Draw live curves in the terminal until the runs have ended; elsewhere print a line for each step.
    Watch(watch::WatchOptions),
    /// Write a note about a run, with its figures filled in.
    Note(note::NoteOptions),
    /// Write a page that leads to all run notes and result tables.
    Index(index::IndexOptions),
    /// Write one self-contained HTML page about runs: results, curves, settings, images.
    Report(report::ReportOptions),
    /// Upload runs to W&B that were recorded offline or during an outage, also while they go on.
    Sync(sync::SyncOptions),
}

/// Runs a command and prints its result to standard output.
///
/// # Errors
/// A folder that is not a run, a damaged file, an unknown metric or key.
pub(crate) fn run(command: &RunsCommand) -> Result<ExitCode> {
    // An upload says what it does; the other commands print results, and warnings beside them.
    let level = if matches!(command, RunsCommand::Sync(_)) { LevelFilter::INFO } else { LevelFilter::WARN };
    console::init(level, 0)?;
    match command {
        RunsCommand::List(options) => list::list(options),
        RunsCommand::Show(options) => show::show(options),
        RunsCommand::Table(options) => table::table(options),
        RunsCommand::Plot(options) => plot::plot(options),
        RunsCommand::Compare(options) => compare::compare(options),
        RunsCommand::Watch(options) => watch::watch(options),
        RunsCommand::Note(options) => note::note(options),
        RunsCommand::Index(options) => index::index(options),
        RunsCommand::Report(options) => report::report(options),
        RunsCommand::Sync(options) => sync::sync(options),
    }
}
