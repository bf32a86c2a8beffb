//! `summary.html`: the results of a pipeline as a page.

use super::summary::{Report, StepReport, clock};
use anyhow::Result;
use hlrp_schema::ExperimentConfig;
use hlrp_track::{page::Page, table::ResultTable};
use std::path::{Path, PathBuf};

const FILE_NAME: &str = "summary.html";

/// How to read the table of a study.
pub(super) const ARMS_NOTE: &str =
    "Means over the seeds with their 95 % interval (Student's); differences to the control are taken seed by seed.";

/// Writes the page into the pipeline's directory and returns its path.
///
/// # Errors
/// An image cannot be read, or the page cannot be written.
pub(super) fn write(
    run_dir: &Path,
    experiment: &ExperimentConfig,
    report: &Report,
    arms: Option<&ResultTable>,
) -> Result<PathBuf> {
    let seconds = report.steps.iter().map(|step| step.seconds).sum();
    let note = format!("{}. {} minutes in all.", experiment.description, clock(seconds));
    let mut page = Page::new(&experiment.name, &note);
    if let Some(arms) = arms {
        page.section("Arms");
        page.note(ARMS_NOTE);
        page.table(arms);
    }
    for step in &report.steps {
        section(&mut page, run_dir, step)?;
    }
    let path = run_dir.join(FILE_NAME);
    page.write(&path)?;
    Ok(path)
}

fn section(page: &mut Page, run_dir: &Path, step: &StepReport) -> Result<()> {
    let folder = step.run_dir.strip_prefix(run_dir).unwrap_or(&step.run_dir);
    page.section(step.title);
    page.note(&format!("{} minutes in {}", clock(step.seconds), folder.display()));
    page.facts(&step.facts);
    Ok(page.media(run_dir, &step.images, &step.videos)?)
}
