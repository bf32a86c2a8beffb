//! The results of the steps: the same for the table on the terminal, `summary.md` and the page.

use super::{html::ARMS_NOTE, stage::Contract, state::State, steps::Step};
use crate::{
    lerobot::read_results,
    runs::{images_in, last_images},
};
use anyhow::Result;
use hlrp_schema::Stage;
use hlrp_track::{
    fs::write_atomic,
    metrics::{FILE_NAME as METRICS, MetricsRow, read_metrics, shown},
    run::Manifest,
    table::ResultTable,
};
use std::path::{Path, PathBuf};

/// A pipeline's outcome.
pub(super) struct Report {
    pub(super) steps: Vec<StepReport>,
}

/// One step's outcome.
pub(super) struct StepReport {
    pub(super) name: String,
    pub(super) title: &'static str,
    pub(super) run_dir: PathBuf,
    pub(super) seconds: f64,
    /// What was measured, and the value.
    pub(super) facts: Vec<(String, String)>,
    /// Images in the run directory, those of the last validation last.
    pub(super) images: Vec<PathBuf>,
    pub(super) videos: Vec<PathBuf>,
}

/// Reads the run directories of a pipeline that is done.
///
/// # Errors
/// A file in one of them is missing or damaged.
pub(super) fn of(steps: &[Step], state: &State) -> Result<Report> {
    let both = steps.iter().zip(&state.steps);
    let reports = both.filter_map(|(step, state)| Some((step, state, state.run_dir.clone()?)));
    let reports = reports.map(|(step, state, run_dir)| {
        let mut videos = Vec::new();
        let facts = match step.stage() {
            Some(Stage::Laq | Stage::LaqAnalysis | Stage::Vla | Stage::LerobotTrain) => facts(&run_dir)?,
            Some(Stage::LerobotRollout | Stage::Pipeline) => rollouts(&run_dir, &mut videos)?,
            None => Vec::new(),
        };
        // The curves of a run, then the images of its last validation.
        let images = images_in(&run_dir.join("plots")).into_iter().chain(last_images(&run_dir)).collect();
        let title = Contract::of(step.stage()).title;
        Ok(StepReport { name: step.name.clone(), title, run_dir, seconds: state.seconds, facts, images, videos })
    });
    Ok(Report { steps: reports.collect::<Result<_>>()? })
}

/// Writes the table to `summary.md`, after that of a study's arms.
///
/// # Errors
/// The system refuses.
pub(super) fn write(run_dir: &Path, report: &Report, arms: Option<&ResultTable>) -> Result<()> {
    let arms = arms.map(|arms| format!("{}\n\n{ARMS_NOTE}\n\n", arms.to_markdown()));
    let text = format!("{}{}\n", arms.unwrap_or_default(), report.table().to_markdown());
    Ok(write_atomic(&run_dir.join("summary.md"), text)?)
}

impl Report {
    /// One row for each fact, and the time of each step.
    pub(super) fn table(&self) -> ResultTable {
        let mut table = ResultTable::new(["step", "time", "what", "value"]);
        for step in &self.steps {
            let mut first = [step.name.clone(), clock(step.seconds)];
            let none = [("finished".to_owned(), String::new())];
            let facts = if step.facts.is_empty() { &none[..] } else { &step.facts };
            for (what, value) in facts {
                let [name, time] = std::mem::take(&mut first);
                table = table.row([name, time, what.clone(), value.clone()]);
            }
        }
        let seconds = self.steps.iter().map(|step| step.seconds).sum();
        table.row(["together".to_owned(), clock(seconds)])
    }
}

/// `3:07`
pub(super) fn clock(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    format!("{}:{:02}", whole / 60, whole % 60)
}

/// The last value of every metric that the run declares for tables.
fn facts(run_dir: &Path) -> Result<Vec<(String, String)>> {
    let rows = read_metrics(&run_dir.join(METRICS))?;
    let steps = ("steps".to_owned(), rows.last().map_or(0, |row| row.step).to_string());
    let last = |name: &str| rows.iter().rev().find_map(|row: &MetricsRow| row.get(name));
    let manifest = Manifest::read(run_dir)?;
    let verdict = manifest.sessions.last().and_then(|session| session.verdict.clone());
    // Its hint is on a line of its own.
    let verdict = verdict.map(|text| ("what is wrong".to_owned(), text.replace('\n', "; ")));
    Ok(std::iter::once(steps).chain(shown(&manifest.metrics, last)).chain(verdict).collect())
}

fn number(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.4}") }
}

fn rollouts(run_dir: &Path, videos: &mut Vec<PathBuf>) -> Result<Vec<(String, String)>> {
    let results = read_results(run_dir)?;
    let mut facts = Vec::new();
    for result in results {
        facts.push((
            format!("successes in {}", result.task),
            format!("{} ({})", result.count(), result.interval_text()),
        ));
        facts.push((format!("largest reward in {}, mean", result.task), number(result.mean_max_reward)));
        videos.extend(result.videos);
    }
    Ok(facts)
}
