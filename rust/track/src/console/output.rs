//! Where lines go. One lock orders standard error, the log file and the progress bar.

use super::line::{colour, format_event};
use crate::{Result, TrackError};
use hlrp_config::secret::redact;
use indicatif::ProgressBar;
use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};
use tracing::{Event, Subscriber};
use tracing_subscriber::{Layer, layer::Context};

/// Target of progress lines; a bar replaces them on the terminal.
pub(super) const PROGRESS: &str = "hlrp_progress";

struct Output {
    file: Option<(PathBuf, File)>,
    bar: Option<ProgressBar>,
    rank: usize,
    listener: Option<Listener>,
}

/// Gets every line.
type Listener = Box<dyn Fn(&str) + Send>;

static OUTPUT: Mutex<Output> = Mutex::new(Output { file: None, bar: None, rank: 0, listener: None });

fn output() -> MutexGuard<'static, Output> {
    OUTPUT.lock().unwrap_or_else(PoisonError::into_inner) // the state is whole between any two statements
}

pub(super) fn set_rank(rank: usize) {
    output().rank = rank;
}

pub(super) fn rank() -> usize {
    output().rank
}

pub(super) fn set_bar(bar: Option<ProgressBar>) {
    output().bar = bar;
}

pub(super) fn set_listener(listener: Option<Listener>) {
    output().listener = listener;
}

pub(super) fn pass_on(line: &str) {
    if let Some(listener) = &output().listener {
        listener(line);
    }
}

pub(super) fn open_file(path: &Path) -> Result<()> {
    let mut output = output();
    if output.rank == 0 {
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(TrackError::io("open", path))?;
        output.file = Some((path.to_path_buf(), file));
    }
    Ok(())
}

pub(super) fn print(text: &str) {
    let output = output();
    if output.rank != 0 {
        return;
    }
    let text = redact(text);
    if let Some(listener) = &output.listener {
        text.lines().for_each(listener);
    }
    let write = || {
        // A closed pipe is the reader's wish to see no more.
        let _ = writeln!(std::io::stdout(), "{text}");
    };
    match &output.bar {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// Writes `shown` to standard error and `line` to the file, both without secrets.
pub(super) fn write_both(shown: &str, line: &str) {
    let mut output = output();
    write_to_file(&mut output, &redact(line));
    write_to_stderr(&redact(shown));
}

/// Writes each event as one line, without secrets.
pub(super) struct LineLayer {
    rank: usize,
    coloured: bool,
}

impl LineLayer {
    pub(super) fn new(rank: usize) -> Self {
        Self { rank, coloured: super::is_terminal() }
    }
}

impl<S: Subscriber> Layer<S> for LineLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let line = redact(&format_event(event, self.rank));
        let mut output = output();
        write_to_file(&mut output, &line);
        let shown = if self.coloured { colour(&line, event.metadata().level()) } else { line };
        match &output.bar {
            Some(_) if event.metadata().target() == PROGRESS => {}
            Some(bar) => bar.suspend(|| write_to_stderr(&shown)),
            None => write_to_stderr(&shown),
        }
    }
}

/// A log file that can no longer be written is given up, with one line on standard error: logging never stops a run.
fn write_to_file(output: &mut Output, line: &str) {
    if let Some(listener) = &output.listener {
        listener(line);
    }
    let Some((path, file)) = &mut output.file else { return };
    if let Err(error) = file.write_all(format!("{line}\n").as_bytes()) {
        write_to_stderr(&format!("cannot write {}: {error}; further lines appear here only", path.display()));
        output.file = None;
    }
}

fn write_to_stderr(line: &str) {
    // In one piece: other processes write to it too. Nowhere is left to report that it is closed.
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}
