//! A bar on a terminal, lines elsewhere.

use super::{
    format_value, is_terminal, output,
    rate::{Rate, clock},
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Instant;

const BYTES_PER_MB: f64 = 1e6;

/// Redraws per second.
const REDRAW_HZ: u8 = 10;

/// What progress is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Steps,
    Bytes,
}

/// Progress of one activity, such as the steps of a training.
///
/// Every [`Progress::set`] also writes a line `[Step n/total] name=value, … | rate, ETA` to `unified.log`, and to standard error where
/// there is no bar: the caller chooses how often. One activity at a time may have a bar.
#[derive(Debug)]
pub struct Progress {
    total: u64,
    unit: Unit,
    started: Instant,
    rate: Rate,
    bar: Option<ProgressBar>,
    is_shown: bool,
}

impl Progress {
    /// Starts at `start` of `total` steps (`start > 0` when a run continues).
    pub fn new(total: u64, start: u64) -> Self {
        Self::counting(Unit::Steps, total, start)
    }

    /// Starts at `start` of `total` bytes; lines are `[n/total MB] name=value, … | MB/s, ETA`.
    pub fn of_bytes(total: u64, start: u64) -> Self {
        Self::counting(Unit::Bytes, total, start)
    }

    fn counting(unit: Unit, total: u64, start: u64) -> Self {
        let is_shown = output::rank() == 0;
        let bar = (is_shown && is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(REDRAW_HZ));
            bar.set_style(style(unit));
            bar.set_position(start);
            bar
        });
        output::set_bar(bar.clone());
        let mut rate = Rate::default();
        rate.mark(std::time::Duration::ZERO, start);
        Self { total, unit, started: Instant::now(), rate, bar, is_shown }
    }

    /// Moves the bar to `step`, without a line.
    pub fn advance(&self, step: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(step);
        }
    }

    /// Reports `step` and the values that describe it.
    pub fn set(&mut self, step: u64, values: &[(&str, f64)]) {
        self.rate.mark(self.started.elapsed(), step);
        let speed = self.speed();
        let values: Vec<String> =
            values.iter().map(|(name, value)| format!("{name}={}", format_value(name, *value))).collect();
        let values = values.join(", ");
        if let Some(bar) = &self.bar {
            bar.set_message(if values.is_empty() { speed.clone() } else { format!("{speed}  {values}") });
            bar.set_position(step);
        }
        if self.is_shown {
            let space = if values.is_empty() { "" } else { " " };
            let done = match self.unit {
                Unit::Steps => format!("Step {step}/{}", self.total),
                Unit::Bytes => format!("{:.1}/{:.1} MB", megabytes(step), megabytes(self.total)),
            };
            tracing::info!(target: output::PROGRESS, "[{done}]{space}{values} | {speed}");
        }
    }

    /// Removes the bar.
    pub fn finish(self) {
        drop(self);
    }

    fn speed(&self) -> String {
        match (self.rate.per_second(), self.rate.remaining(self.total)) {
            (Some(rate), Some(remaining)) if self.unit == Unit::Bytes => {
                format!("{:.1} MB/s, ETA {}", rate / BYTES_PER_MB, clock(remaining))
            }
            (Some(rate), Some(remaining)) if rate >= 1.0 => format!("{rate:.1} steps/s, ETA {}", clock(remaining)),
            (Some(rate), Some(remaining)) => format!("{:.1} s/step, ETA {}", 1.0 / rate, clock(remaining)),
            _ => "ETA ?".into(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            output::set_bar(None);
            bar.finish_and_clear();
        }
    }
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / BYTES_PER_MB
}

fn style(unit: Unit) -> ProgressStyle {
    let template = match unit {
        Unit::Steps => "{bar:28.cyan/dim} {pos}/{len} [{elapsed_precise}] {wide_msg}",
        Unit::Bytes => "{bar:28.cyan/dim} {decimal_bytes}/{decimal_total_bytes} [{elapsed_precise}] {wide_msg}",
    };
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar()) // the template is fixed; a bad one would only look plain
        .progress_chars("━╸─")
}
