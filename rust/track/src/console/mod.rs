//! What a person sees: log lines on standard error and in `unified.log`, and a progress bar or progress lines.
//!
//! Libraries log through [`tracing`]; a program calls [`init`] once, and [`log_to`] when its run directory exists.
//! A log line has the form `[YYYY-MM-DD HH:MM:SS][name][LEVEL] - message`, where `name` is the module with dots, without `hlrp_`.
//! On a terminal a bar shows progress and log lines appear above it; elsewhere (a Slurm log, a pipe) progress is lines.
//! Ranks other than 0 are silent below a warning, write no file and show no progress.

mod failure;
mod line;
mod output;
mod progress;
mod rate;

pub use failure::{error_text, message_and_hints, report_error};
pub use line::format_value;
pub use progress::Progress;

use crate::{Result, TrackError};
use std::{
    any::Any,
    cell::Cell,
    io::{IsTerminal, stderr},
    panic::{self, AssertUnwindSafe},
    path::Path,
};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer, layer::SubscriberExt};

/// Sets up the console of this process. Panics are logged, too.
///
/// `rank` is the process's global rank. Lines of other crates appear from `WARN` on.
///
/// # Errors
/// [`TrackError::ConsoleTwice`].
pub fn init(level: LevelFilter, rank: usize) -> Result<()> {
    let level = if rank == 0 { level } else { level.min(LevelFilter::WARN) };
    let shown = move |target: &str, line_level: &tracing::Level| {
        let limit = if target.starts_with("hlrp") || target == PANIC { level } else { level.min(LevelFilter::WARN) };
        *line_level <= limit
    };
    let layer = output::LineLayer::new(rank)
        .with_filter(tracing_subscriber::filter::filter_fn(move |metadata| shown(metadata.target(), metadata.level())));
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| TrackError::ConsoleTwice)?;
    output::set_rank(rank);
    panic::set_hook(Box::new(|info| {
        if IS_EXPECTED.get().is_some_and(|is_expected| is_expected(&panic_text(info.payload()))) {
            return;
        }
        let trace = std::backtrace::Backtrace::force_capture();
        tracing::error!(target: PANIC, "{info}\n{trace}");
    }));
    Ok(())
}

/// Whether the panic with this message is one that the caller turns into an error.
pub type IsExpected = fn(&str) -> bool;

thread_local! {
    /// Tells the panics that [`catch_panic`] waits for on this thread.
    static IS_EXPECTED: Cell<Option<IsExpected>> = const { Cell::new(None) };
}

/// Runs `work`; a panic is returned as its text. One that `is_expected` is not logged.
///
/// What a panic leaves unfinished must not be used again, apart from what is whole between any two statements.
///
/// # Errors
/// The text of the panic.
pub fn catch_panic<T>(is_expected: IsExpected, work: impl FnOnce() -> T) -> std::result::Result<T, String> {
    let outer = IS_EXPECTED.replace(Some(is_expected));
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    IS_EXPECTED.set(outer);
    result.map_err(|panic| panic_text(&*panic))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic without text".to_owned())
}

/// From now on every log line is also appended to `path`. Ranks other than 0 ignore this.
///
/// # Errors
/// The file cannot be opened.
pub fn log_to(path: &Path) -> Result<()> {
    output::open_file(path)
}

/// Prints `text` to standard output as it is, without tearing a progress bar: for the table at the end of a run. Rank 0 only.
pub fn print(text: &str) {
    output::print(text);
}

/// Name under which panics are logged.
const PANIC: &str = "panic";

/// Whether a progress bar can be drawn.
fn is_terminal() -> bool {
    stderr().is_terminal()
}
