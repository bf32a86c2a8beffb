//! What a person sees: log lines on standard error and in `unified.log`, and a progress bar or progress lines.
//!
//! Libraries log through [`tracing`]; a program calls [`init`] once, and [`log_to`] when its run directory exists.
//! A log line has the form `[YYYY-MM-DD HH:MM:SS][name][LEVEL] - message`, where `name` is the module with dots, without `hlrp_`.
//! On a terminal a bar shows progress and log lines appear above it; elsewhere (a Slurm log, a pipe) progress is lines.
//! Ranks other than 0 are silent below an error, because what they find is what rank 0 finds, except for warnings about their own samples; they
//! write no file and show no progress.

mod failure;
mod line;
mod output;
mod panics;
mod progress;
mod rate;

pub use failure::{error_text, message_and_hints, report_error};
pub use line::format_value;
pub use panics::{IsExpected, catch_panic, panic_text};
pub use progress::Progress;

use crate::{Result, TrackError};
use std::{
    io::{IsTerminal, stderr},
    path::Path,
};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer, layer::SubscriberExt};

/// Target of warnings about the samples of one process, which no other process reads: every rank shows them.
pub const OWN_SAMPLES: &str = "samples";

/// Sets up the console of this process. Panics are logged, too.
///
/// `rank` is the process's global rank. Lines of other crates appear from `WARN` on.
///
/// # Errors
/// [`TrackError::ConsoleTwice`].
pub fn init(level: LevelFilter, rank: usize) -> Result<()> {
    let shown = move |target: &str, line_level: &tracing::Level| {
        let limit = match target {
            _ if rank > 0 && target != OWN_SAMPLES => level.min(LevelFilter::ERROR),
            _ if rank > 0 => level.min(LevelFilter::WARN),
            _ if target.starts_with("hlrp") || target == panics::TARGET => level,
            _ => level.min(LevelFilter::WARN),
        };
        *line_level <= limit
    };
    let layer = output::LineLayer::new(rank)
        .with_filter(tracing_subscriber::filter::filter_fn(move |metadata| shown(metadata.target(), metadata.level())));
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| TrackError::ConsoleTwice)?;
    output::set_rank(rank);
    panics::log_panics();
    Ok(())
}

/// From now on every log line is also appended to `path`. Ranks other than 0 ignore this.
///
/// # Errors
/// The file cannot be opened.
pub fn log_to(path: &Path) -> Result<()> {
    output::open_file(path)
}

/// From now on every line goes to `listener` as well, without secrets. It is called before the line is complete on the console, and must neither
/// wait nor log.
pub fn listen(listener: impl Fn(&str) + Send + 'static) {
    output::set_listener(Some(Box::new(listener)));
}

/// A line of a child process, which it has shown already and which has no secrets, goes to the listener too.
pub fn pass_on(line: &str) {
    output::pass_on(line);
}

/// Ends what [`listen`] began.
pub fn stop_listening() {
    output::set_listener(None);
}

/// Prints `text` to standard output as it is, without tearing a progress bar: for the table at the end of a run. Rank 0 only.
pub fn print(text: &str) {
    output::print(text);
}

/// Whether a progress bar can be drawn.
fn is_terminal() -> bool {
    stderr().is_terminal()
}
