//! `summary.html`: one file that can be sent around; it contains the images and short videos.

use super::summary::{Report, StepReport, clock};
use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hlrp_config::secret::redact;
use hlrp_schema::ExperimentConfig;
use hlrp_track::fs::write_atomic;
use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

const FILE_NAME: &str = "summary.html";
/// Videos in the page, for each step; the others are links.
const MAX_VIDEOS: usize = 3;
/// A larger video is a link.
const MAX_VIDEO_BYTES: u64 = 4 << 20;

const STYLE: &str = "\
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 1100px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem; margin-bottom: 0 } h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; border-top: 1px solid #ddd; padding-top: 1rem }
p.note { color: #666; margin: .2rem 0 1rem } table { border-collapse: collapse } td { padding: .15rem 1.5rem .15rem 0 }
td + td { font-variant-numeric: tabular-nums } .media { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; margin-top: 1rem }
figure { margin: 0 } figure img { max-width: 520px; border: 1px solid #eee } figure video { width: 300px; border: 1px solid #eee }
figcaption { color: #666; font-size: .85rem }";

/// Writes the page into the pipeline's directory and returns its path.
///
/// # Errors
/// An image cannot be read, or the page cannot be written.
pub(super) fn write(run_dir: &Path, experiment: &ExperimentConfig, report: &Report) -> Result<PathBuf> {
    let mut body = String::new();
    let title = escaped(&experiment.name);
    let seconds = report.steps.iter().map(|step| step.seconds).sum();
    let note = format!("{}. {} minutes in all.", escaped(&experiment.description), clock(seconds));
    body += &format!("<h1>{title}</h1>\n<p class=\"note\">{note}</p>\n");
    for step in &report.steps {
        section(&mut body, run_dir, step)?;
    }
    let page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{title}</title>\n<style>\n{STYLE}\n</style></head>\n\
         <body>\n{body}</body>\n</html>\n"
    );
    let path = run_dir.join(FILE_NAME);
    write_atomic(&path, page)?;
    Ok(path)
}

fn section(body: &mut String, run_dir: &Path, step: &StepReport) -> Result<()> {
    let folder = step.run_dir.strip_prefix(run_dir).unwrap_or(&step.run_dir).display().to_string();
    let (title, folder) = (escaped(step.title), escaped(&folder));
    // Writing to a String cannot fail.
    writeln!(body, "<h2>{title}</h2>\n<p class=\"note\">{} minutes in <code>{folder}</code></p>", clock(step.seconds))?;
    let rows: String = step
        .facts
        .iter()
        .map(|(what, value)| format!("<tr><td>{}</td><td>{}</td></tr>\n", escaped(what), escaped(value)))
        .collect();
    writeln!(body, "<table>\n{rows}</table>\n<div class=\"media\">")?;
    for path in &step.images {
        let image = format!("<img alt=\"{0}\" src=\"data:image/png;base64,{1}\">", caption(path), encoded(path)?);
        figure(body, &image, path)?;
    }
    for (index, video) in step.videos.iter().enumerate() {
        let is_small = fs::metadata(video).is_ok_and(|meta| meta.len() <= MAX_VIDEO_BYTES);
        if index < MAX_VIDEOS && is_small {
            let source = format!("data:video/mp4;base64,{}", encoded(video)?);
            figure(body, &format!("<video controls loop muted src=\"{source}\"></video>"), video)?;
        } else {
            let target = escaped(&video.strip_prefix(run_dir).unwrap_or(video).display().to_string());
            writeln!(body, "<a href=\"{target}\">{}</a>", caption(video))?;
        }
    }
    writeln!(body, "</div>")?;
    Ok(())
}

fn figure(body: &mut String, content: &str, path: &Path) -> Result<()> {
    writeln!(body, "<figure>{content}<figcaption>{}</figcaption></figure>", caption(path))?;
    Ok(())
}

fn caption(path: &Path) -> String {
    escaped(&path.file_stem().unwrap_or_default().to_string_lossy().replace('_', " "))
}

fn encoded(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(BASE64.encode(bytes))
}

/// A text as the page shows it, without secrets.
fn escaped(text: &str) -> String {
    redact(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
