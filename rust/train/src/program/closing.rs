//! What a run shows at its end.

use super::Program;
use crate::Outcome;
use hlrp_schema::SchedulerType;
use hlrp_track::RunDir;
use hlrp_track::metrics::{FILE_NAME as METRICS, read_metrics};
use hlrp_track::plot::draw_metrics;
use hlrp_track::table::ResultTable;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A picture of curves over the whole run, drawn when at least one of its metrics was recorded.
pub struct CurvePicture {
    /// File in the run's folder of plots.
    pub file: &'static str,
    /// Full names of the metrics.
    pub metrics: &'static [&'static str],
    /// Above the picture.
    pub title: &'static str,
    /// Beside the vertical axis.
    pub y_label: &'static str,
    /// Logarithmic vertical axis.
    pub log_y: bool,
}

/// Text of a row from the metrics of the newest validation.
pub type RowText = Box<dyn Fn(&BTreeMap<String, f64>) -> String>;

/// What a stage shows of a finished run.
pub struct Closing {
    /// Curves.
    pub curves: &'static [CurvePicture],
    /// Rows of the closing table: what it is, and its text.
    pub rows: Vec<(&'static str, RowText)>,
    /// Files in the run directory to point at, if they exist: what they are, and where they lie.
    pub files: &'static [(&'static str, &'static str)],
    /// Pictures in the folder of the last validation, if they exist.
    pub pictures: &'static [&'static str],
}

impl Closing {
    /// The text of one metric with `digits` digits behind the point; a dash where it is absent.
    pub fn metric(name: &'static str, digits: usize) -> RowText {
        Box::new(move |metrics| metrics.get(name).map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}")))
    }
}

/// Draws the curves of the run into its folder of plots and gives the paths of what there was to draw.
pub(super) fn draw_curves(run_dir: &RunDir, pictures: &[CurvePicture]) -> anyhow::Result<Vec<PathBuf>> {
    let rows = read_metrics(&run_dir.path().join(METRICS))?;
    let mut drawn = Vec::new();
    for picture in pictures {
        let path = run_dir.plots().join(picture.file);
        if draw_metrics(&path, &rows, picture.metrics, picture.title, picture.y_label, picture.log_y)? {
            drawn.push(path);
        }
    }
    Ok(drawn)
}

/// Says that the run to resume had done its `step` steps, and how to train on.
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

/// The closing table: what was learned, how fast, and where the pictures are.
pub(super) fn table<P: Program>(outcome: &Outcome, run_dir: &Path, closing: &Closing, curves: &[PathBuf]) -> String {
    let summary = outcome.summary();
    let metrics = summary.validation.clone().unwrap_or_default();
    let mut table = ResultTable::new(["result", "value"]).row(["steps", &summary.step.to_string()]);
    for (name, text) in &closing.rows {
        table = table.row([name, text(&metrics).as_str()]);
    }
    table = table
        .row(["samples/s", &format!("{:.1}", summary.samples_per_sec)])
        .row(["share of time waiting for data", &format!("{:.1} %", 100.0 * summary.data_wait_share)]);
    if let Some(checkpoint) = &summary.checkpoint {
        table = table.row(["checkpoint", &checkpoint.display().to_string()]);
    }
    let existing = |path: PathBuf| path.exists().then(|| path.display().to_string());
    for (name, place) in closing.files {
        if let Some(path) = existing(run_dir.join(place)) {
            table = table.row([*name, path.as_str()]);
        }
    }
    let validation = run_dir.join(format!("validation/step-{:06}", summary.step));
    let of_validation = closing.pictures.iter().map(|file| validation.join(file));
    for path in of_validation.chain(curves.iter().cloned()).filter_map(existing) {
        table = table.row(["picture", path.as_str()]);
    }
    let mut text = table.to_text();
    if matches!(outcome, Outcome::Interrupted(_)) {
        text.push_str(&format!("\ninterrupted; continue with: {} --resume {}\n", P::COMMAND, run_dir.display()));
    }
    text
}
