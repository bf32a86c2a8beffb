//! What a run shows at its end.

use hlrp_laq::{CODE_HISTOGRAM, RECONSTRUCTIONS};
use hlrp_track::RunDir;
use hlrp_track::metrics::{FILE_NAME as METRICS, read_metrics};
use hlrp_track::plot::draw_metrics;
use hlrp_track::table::ResultTable;
use hlrp_train::Outcome;
use std::path::{Path, PathBuf};

/// Pictures of curves: file name, metrics, title, label of the y axis.
const CURVES: [(&str, &[&str], &str, &str); 2] = [
    (
        "pixel_loss.png",
        &["train/pixel_loss", "val/pixel_loss", "val/copy_frame_loss"],
        "Pixel loss beside the copy-frame baseline",
        "mean squared error",
    ),
    (
        "codes.png",
        &["train/num_unique_codes", "train/codebook_window_perplexity", "val/num_unique_codes"],
        "Codes in use",
        "codes",
    ),
];

/// Draws the curves of the run into its folder of plots and gives the paths of what there was to draw.
pub(super) fn draw_curves(run_dir: &RunDir) -> anyhow::Result<Vec<PathBuf>> {
    let rows = read_metrics(&run_dir.path().join(METRICS))?;
    let mut drawn = Vec::new();
    for (file, metrics, title, y_label) in CURVES {
        let path = run_dir.plots().join(file);
        let is_loss = file == "pixel_loss.png";
        if draw_metrics(&path, &rows, metrics, title, y_label, is_loss)? {
            drawn.push(path);
        }
    }
    Ok(drawn)
}

/// The closing table: what was learned, how fast, and where the pictures are.
pub(super) fn table(outcome: &Outcome, run_dir: &Path, num_codes: i64, curves: &[PathBuf]) -> String {
    let summary = outcome.summary();
    let metric = |name: &str| summary.validation.as_ref().and_then(|metrics| metrics.get(name)).copied();
    let loss = |name: &str| metric(name).map_or_else(|| "-".to_owned(), |value| format!("{value:.5}"));
    let codes =
        metric("val/num_unique_codes").map_or_else(|| "-".to_owned(), |used| format!("{used:.0} of {num_codes}"));
    let ratio = metric("val/permuted_latent_ratio").map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
    let mut table = ResultTable::new(["result", "value"])
        .row(["steps", &summary.step.to_string()])
        .row(["validation pixel loss", &loss("val/pixel_loss")])
        .row(["copy-frame baseline", &loss("val/copy_frame_loss")])
        .row(["pixel loss with another pair's codes / with its own", &ratio])
        .row(["codes in use", &codes])
        .row(["samples/s", &format!("{:.1}", summary.samples_per_sec)])
        .row(["share of time waiting for data", &format!("{:.1} %", 100.0 * summary.data_wait_share)]);
    if let Some(checkpoint) = &summary.checkpoint {
        table = table.row(["checkpoint", &checkpoint.display().to_string()]);
    }
    for path in validation_pictures(run_dir, summary.step).iter().chain(curves) {
        table = table.row(["picture", &path.display().to_string()]);
    }
    let mut text = table.to_text();
    if matches!(outcome, Outcome::Interrupted(_)) {
        text.push_str(&format!("\ninterrupted; continue with: hlrp train-laq --resume {}\n", run_dir.display()));
    }
    text
}

fn validation_pictures(run_dir: &Path, step: u64) -> Vec<PathBuf> {
    let folder = run_dir.join(format!("validation/step-{step:06}"));
    [RECONSTRUCTIONS, CODE_HISTOGRAM].map(|file| folder.join(file)).into_iter().filter(|path| path.is_file()).collect()
}
