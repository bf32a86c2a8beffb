//! A bar on a terminal, lines elsewhere.

use super::{
    format_value, is_terminal, output,
    rate::{Rate, clock},
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Instant;

/// Redraws per second.
const REDRAW_HZ: u8 = 10;

/// Progress of one activity, such as the steps of a training.
///
/// Every [`Progress::set`] also writes a line `[Step n/total] name=value, … | rate, ETA` to `unified.log`, and to standard error where
/// there is no bar: the caller chooses how often. One activity at a time may have a bar.
#[derive(Debug)]
pub struct Progress {
    total: u64,
    started: Instant,
    rate: Rate,
    bar: Option<ProgressBar>,
    is_shown: bool,
}

impl Progress {
    /// Starts at `start` of `total` steps (`start > 0` when a run continues).
    pub fn new(total: u64, start: u64) -> Self {
        let is_shown = output::rank() == 0;
        let bar = (is_shown && is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(REDRAW_HZ));
            bar.set_style(style());
            bar.set_position(start);
            bar
        });
        output::set_bar(bar.clone());
        let mut rate = Rate::default();
        rate.mark(std::time::Duration::ZERO, start);
        Self { total, started: Instant::now(), rate, bar, is_shown }
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
            tracing::info!(target: output::PROGRESS, "[Step {step}/{}]{space}{values} | {speed}", self.total);
        }
    }

    /// Removes the bar.
    pub fn finish(self) {
        drop(self);
    }

    fn speed(&self) -> String {
        match (self.rate.per_second(), self.rate.remaining(self.total)) {
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

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:28.cyan/dim} {pos}/{len} [{elapsed_precise}] {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar()) // the template is fixed; a bad one would only look plain
        .progress_chars("━╸─")
}
