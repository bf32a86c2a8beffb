//! `hlrp runs watch`: live curves in the terminal, until the runs have ended.

use super::{
    find::{self, LeftOut},
    record::{Run, status_name},
    values::{default_metric, names, refuse_unknown},
};
use anyhow::Result;
use clap::Args;
use hlrp_track::{
    console::{self, format_value},
    metrics::{MetricsRow, series},
    run::RunStatus,
};
use std::{
    io::{IsTerminal, Write, stdout},
    path::PathBuf,
    process::ExitCode,
    thread,
    time::Duration,
};
use textplots::{Chart, Plot, Shape};

/// What is watched of a run that has recorded nothing yet.
const DEFAULT_METRIC: &str = "train/loss";
/// Smallest and largest size of a plot in characters: columns, rows.
const COLUMNS: std::ops::RangeInclusive<u16> = 40..=160;
const ROWS: std::ops::RangeInclusive<u16> = 6..=20;
/// Columns beside a plot, which has the labels of its axis at the right.
const LABELS: u16 = 12;
/// Rows that a plot needs besides its own: title, axis, an empty line.
const FRAME: u16 = 4;

/// Options of `hlrp runs watch`.
#[derive(Debug, Args)]
pub(crate) struct WatchOptions {
    /// Run directories, or folders of runs.
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// The metrics to draw; by default train/loss, or the score where that is not recorded.
    #[arg(long, value_name = "METRIC", value_delimiter = ',')]
    metric: Vec<String>,
    /// Seconds between two looks at the files.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = seconds)]
    interval: f64,
}

fn seconds(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.05..=3600.0).contains(&value) { Ok(value) } else { Err("it has to be from 0.05 to 3600 seconds".to_owned()) }
}

/// A run, and the newest step that has been printed of it.
struct Watched {
    run: Run,
    rows: Vec<MetricsRow>,
    is_running: bool,
    printed: Option<u64>,
}

pub(super) fn watch(options: &WatchOptions) -> Result<ExitCode> {
    let mut left_out = LeftOut::default();
    let found = find::some_runs(&options.runs, &mut left_out)?;
    let exit_code = left_out.report(found.len())?;
    let mut watched: Vec<Watched> =
        found.into_iter().map(|run| Watched { run, rows: Vec::new(), is_running: true, printed: None }).collect();
    let is_terminal = stdout().is_terminal();
    loop {
        for watched in &mut watched {
            watched.look()?;
        }
        let metrics = metrics(&watched, &options.metric)?;
        if is_terminal {
            draw(&watched, &metrics);
        } else {
            watched.iter_mut().for_each(|watched| watched.print(&metrics));
        }
        if watched.iter().all(|watched| !watched.is_running) {
            break;
        }
        thread::sleep(Duration::from_secs_f64(options.interval));
    }
    for watched in &watched {
        let step = watched.rows.last().map_or(0, |row| row.step);
        console::print(&format!("{}: {} after {step} steps", watched.run.name, status_name(&watched.run.status())));
    }
    Ok(exit_code)
}

impl Watched {
    /// Reads what the run has recorded until now.
    fn look(&mut self) -> Result<()> {
        self.run = Run::open(&self.run.path, self.run.name.clone())?;
        // The status comes first: what a run has recorded when it has ended is all that it records.
        self.is_running = self.run.status() == RunStatus::Running;
        self.rows = self.run.metrics()?;
        Ok(())
    }

    /// A line for each new step.
    fn print(&mut self, metrics: &[String]) {
        let mut steps: Vec<u64> = self.rows.iter().map(|row| row.step).collect();
        steps.dedup();
        let new: Vec<u64> =
            steps.into_iter().filter(|step| self.printed.is_none_or(|printed| *step > printed)).collect();
        // The rows of the newest step may still grow.
        let whole = if self.is_running { &new[..new.len().saturating_sub(1)] } else { &new[..] };
        for &step in whole {
            let value = |metric: &String| {
                let rows = self.rows.iter().filter(|row| row.step == step);
                let value = rows.filter_map(|row| row.get(metric)).next_back()?;
                Some(format!("{metric}={}", format_value(metric, value)))
            };
            let values: Vec<String> = metrics.iter().filter_map(value).collect();
            if !values.is_empty() {
                console::print(&format!("{} step={step} {}", self.run.name, values.join(" ")));
            }
        }
        self.printed = whole.last().copied().or(self.printed);
    }
}

fn metrics(watched: &[Watched], named: &[String]) -> Result<Vec<String>> {
    let rows: Vec<Vec<MetricsRow>> = watched.iter().map(|watched| watched.rows.clone()).collect();
    let is_empty = rows.iter().all(Vec::is_empty);
    if !named.is_empty() {
        // A metric of a validation may still come.
        if watched.iter().all(|watched| !watched.is_running) {
            named.iter().try_for_each(|metric| refuse_unknown(metric, &rows))?;
        }
        return Ok(named.to_vec());
    }
    if is_empty || rows.iter().any(|rows| names(rows).contains(DEFAULT_METRIC)) {
        return Ok(vec![DEFAULT_METRIC.to_owned()]);
    }
    let runs: Vec<Run> =
        watched.iter().map(|watched| Run::open(&watched.run.path, watched.run.name.clone())).collect::<Result<_>>()?;
    Ok(vec![default_metric(&runs, &rows)?])
}

/// Redraws the whole terminal.
fn draw(watched: &[Watched], metrics: &[String]) {
    // A terminal without a size, such as that of a script, says 0.
    let size = rustix::termios::tcgetwinsize(stdout()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
    let (columns, rows) = size.map_or((80, 24), |size| (size.ws_col, size.ws_row));
    let num_plots = (watched.len() * metrics.len()).max(1) as u16;
    let width = columns.saturating_sub(LABELS).clamp(*COLUMNS.start(), *COLUMNS.end());
    let height = (rows / num_plots).saturating_sub(FRAME).clamp(*ROWS.start(), *ROWS.end());
    let mut text = String::new();
    for watched in watched {
        for metric in metrics {
            text += &plot(watched, metric, (width, height));
        }
    }
    // Clear the screen, then go to its upper left corner. Nowhere is left to report that the terminal is closed.
    let _ = write!(stdout(), "\x1b[2J\x1b[H{text}");
    let _ = stdout().flush();
}

/// One curve as text: a title, the plot, its axes.
fn plot(watched: &Watched, metric: &str, (columns, rows): (u16, u16)) -> String {
    let points: Vec<(f32, f32)> = series(&watched.rows, metric)
        .into_iter()
        .filter(|(_, value)| value.is_finite())
        .map(|(step, value)| (step as f32, value as f32))
        .collect();
    let name = &watched.run.name;
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return format!("{name}: no {metric} yet\n\n");
    };
    let title = format!("{name}: {metric} = {} at step {}", format_value(metric, f64::from(last.1)), last.0);
    let end = if last.0 > first.0 { last.0 } else { first.0 + 1.0 };
    // A character has two dots beside each other and four above each other.
    let mut chart = Chart::new(u32::from(columns) * 2, u32::from(rows) * 4, first.0, end);
    let shape = Shape::Lines(&points);
    let chart = chart.lineplot(&shape);
    chart.axis();
    chart.figures();
    format!("{title}\n{chart}\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;

    fn watched(points: &[(u64, f64)]) -> Watched {
        let manifest = serde_json::json!({
            "format": 3, "program": "hlrp-train-laq", "experiment": "a", "description": "", "metrics": [], "sessions": [],
        });
        let row = |&(step, value): &(u64, f64)| MetricsRow { step, time: 0.0, values: vec![("x".to_owned(), value)] };
        let run =
            Run { path: PathBuf::new(), name: "run".to_owned(), manifest: serde_json::from_value(manifest).unwrap() };
        Watched { run, rows: points.iter().map(row).collect(), is_running: true, printed: None }
    }

    #[test]
    fn a_curve_is_drawn_in_braille_below_its_newest_value() {
        let text = plot(&watched(&[(1, 4.0), (2, 2.0), (3, f64::NAN), (4, 1.0)]), "x", (40, 8));
        assert!(text.starts_with("run: x = 1 at step 4\n"), "{text}");
        let is_drawn = |char: char| ('\u{2801}'..='\u{28ff}').contains(&char);
        assert!(text.lines().filter(|line| line.contains(is_drawn)).count() >= 6, "{text}");
        assert!(text.contains("4.0") && text.contains("1.0"), "the axis has its ends: {text}");
    }

    #[test]
    fn one_point_and_none_are_no_error() {
        assert!(plot(&watched(&[(7, 2.0)]), "x", (40, 8)).starts_with("run: x = 2 at step 7"));
        assert_eq!(plot(&watched(&[]), "x", (40, 8)), "run: no x yet\n\n");
    }
}
