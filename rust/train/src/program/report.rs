//! What a run shows at its end.

use super::Program;
use crate::trainer::Outcome;
use hlrp_schema::SchedulerType;
use hlrp_track::RunDir;
use hlrp_track::metrics::{FILE_NAME as METRICS, MetricSpec, read_metrics, shown};
use hlrp_track::plot::draw_metrics;
use hlrp_track::table::ResultTable;
use std::path::{Path, PathBuf};

/// Draws the curves of the run into its folder of plots and returns the files.
pub(super) fn draw_curves(run_dir: &RunDir) -> anyhow::Result<Vec<PathBuf>> {
    let rows = read_metrics(&run_dir.path().join(METRICS))?;
    Ok(draw_metrics(&run_dir.plots(), &rows, &run_dir.manifest().metrics)?)
}

/// Says that the resumed run had already finished after `step` steps, and how to train on.
pub(super) fn nothing_to_do<P: Program>(step: u64, run_dir: &Path, schedule: &SchedulerType) -> String {
    let (command, run_dir) = (P::COMMAND, run_dir.display());
    let way_on = match schedule {
        SchedulerType::None => format!("{command} --resume {run_dir} training.max_steps=…"),
        // The learning rate of every step follows from the number of steps, so another number is another run.
        SchedulerType::Cosine => {
            format!("a new run from its weights: {command} experiment=… training.load_weights_from={run_dir}")
        }
    };
    format!(
        "the run {run_dir} has finished: all {step} steps are done, nothing is left to train\nto train on: {way_on}\n"
    )
}

/// The closing table: what was learned, how fast, and where checkpoint, artifacts and images are.
pub(super) fn table<P: Program>(
    outcome: &Outcome,
    run_dir: &Path,
    metrics: &[MetricSpec],
    curves: &[PathBuf],
) -> String {
    let summary = outcome.summary();
    let mut table = ResultTable::new(["result", "value"]).row(["steps", &summary.step.to_string()]);
    let validation = summary.validation.as_ref();
    for (label, value) in shown(metrics, |name| validation?.get(name).copied()) {
        table = table.row([label, value]);
    }
    table = table
        .row(["samples/s", &format!("{:.1}", summary.samples_per_sec)])
        .row(["fraction of time waiting for data", &format!("{:.1} %", 100.0 * summary.data_wait_fraction)]);
    if let Some(checkpoint) = &summary.checkpoint {
        table = table.row(["checkpoint", &checkpoint.display().to_string()]);
    }
    let files = [("artifact of the best score", "artifacts/best"), ("artifact of the last step", "artifacts/final")];
    for (name, path) in files.map(|(name, file)| (name, run_dir.join(file))).into_iter().filter(|file| file.1.exists())
    {
        table = table.row([name, path.display().to_string().as_str()]);
    }
    let validation = run_dir.join(format!("validation/step-{:06}", summary.step));
    for path in images(&validation).iter().chain(curves) {
        table = table.row(["image", path.display().to_string().as_str()]);
    }
    let mut text = table.to_text();
    if let Some(verdict) = &summary.verdict {
        text.push_str(&format!("\n{verdict}\n"));
    }
    if matches!(outcome, Outcome::Interrupted(_)) {
        text.push_str(&format!("\ninterrupted; continue with: {} --resume {}\n", P::COMMAND, run_dir.display()));
    }
    text
}

/// The images in a folder, by name.
fn images(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let mut images: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "png")).collect();
    images.sort();
    images
}
