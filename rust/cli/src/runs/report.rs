//! `hlrp runs report`: runs beside each other as one page.

use super::{
    groups::{Compared, Entry},
    plot::{self, MAX_CURVES},
    record::{last_images, status_name},
    settings::differing,
    show,
    table::{self, ComparedOptions, groups_table, notes, runs_table},
    values::names,
};
use crate::lerobot;
use anyhow::Result;
use clap::Args;
use hlrp_config::Problem;
use hlrp_schema::refuse_named_output;
use hlrp_track::{
    console,
    page::Page,
    plot::{png_bytes, render_curves},
    table::ResultTable,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Plots in a page, where the user names no metric.
const MAX_PLOTS: usize = 12;
/// Images of one run in a page.
const MAX_IMAGES: usize = 6;
/// A larger image is left out.
const MAX_IMAGE_BYTES: u64 = 4 << 20;
/// Marks the best value.
const BEST: &str = "★ ";

/// Options of `hlrp runs report`.
#[derive(Debug, Args)]
pub(crate) struct ReportOptions {
    #[command(flatten)]
    compared: ComparedOptions,
    /// The page.
    #[arg(long, value_name = "FILE.html", default_value = "report.html")]
    out: PathBuf,
}

pub(super) fn report(options: &ReportOptions) -> Result<ExitCode> {
    if options.out.extension().is_none_or(|extension| extension != "html") {
        let message = format!("{} is not the name of an HTML file", options.out.display());
        return Err(Problem::new("--out", message, "--out report.html").into());
    }
    refuse_named_output("--out", &options.out)?;
    let compared = Compared::of(&options.compared.dirs, &options.compared)?;
    let metrics = drawn_metrics(&compared, &options.compared.metric);
    let page = page(&compared, &metrics, &options.out)?;
    page.write(&options.out)?;
    let [num_runs, num_plots] = [compared.entries.len(), metrics.len()];
    console::print(&format!("{}: {num_runs} runs, {num_plots} metrics", options.out.display()));
    Ok(compared.exit_code)
}

fn page(compared: &Compared, metrics: &[String], out: &Path) -> Result<Page> {
    let num = compared.entries.len();
    let title = if num == 1 { format!("Run {}", compared.entries[0].run.name) } else { format!("{num} runs") };
    let stages: std::collections::BTreeSet<&str> = compared.entries.iter().map(|entry| entry.run.stage()).collect();
    let mut page = Page::new(&title, &stages.into_iter().collect::<Vec<_>>().join(", "));
    page.section("Results");
    page.table(&runs_table(compared, BEST, ""));
    if compared.is_grouped || compared.has_seeds() {
        page.table(&groups_table(compared, BEST, ""));
    }
    notes(compared, "★ marks").iter().for_each(|note| page.note(note));
    page.section("Curves");
    for metric in metrics {
        let (curves, notes) = plot::curves(compared, metric)?;
        let num_curves = curves.len();
        if num_curves > MAX_CURVES {
            page.note(&format!(
                "{metric}: {num_curves} curves are too many for one plot; combine them with --group-by"
            ));
            continue;
        }
        let is_log =
            compared.entries.iter().find_map(|entry| entry.run.spec(metric)?.curve.as_ref().map(|curve| curve.log));
        let chart = plot::chart(compared, metric, curves, (false, is_log.unwrap_or(false)));
        page.plot(&png_bytes(&render_curves(metric, &chart)?)?, metric);
        notes.iter().for_each(|note| page.note(note));
    }
    let differing = differing(compared.entries.iter().map(|entry| (entry.run.stage(), &entry.settings)));
    if !differing.is_empty() {
        page.section("Settings that differ");
        page.table(&settings_table(compared, &differing));
    }
    for entry in compared.entries_in_order() {
        section(&mut page, entry, out)?;
    }
    Ok(page)
}

/// One row for each setting, one column for each run.
fn settings_table(compared: &Compared, keys: &[String]) -> ResultTable {
    let runs = compared.entries.iter().map(|entry| entry.run.name.clone());
    let table = ResultTable::new(["setting".to_owned()].into_iter().chain(runs));
    keys.iter().fold(table, |table, key| {
        let values = compared.entries.iter().map(|entry| entry.settings.get(key).cloned().unwrap_or_else(table::dash));
        table.row([key.clone()].into_iter().chain(values))
    })
}

/// One run: what it records, its results, its last images.
fn section(page: &mut Page, entry: &Entry, out: &Path) -> Result<()> {
    let run = &entry.run;
    page.section(&format!("{} ({})", run.name, status_name(&run.status())));
    page.facts(&show::facts(run, &entry.rows));
    let results = show::results(run, &entry.rows);
    if !results.is_empty() {
        page.table(&results);
    }
    let is_small = |path: &PathBuf| fs::metadata(path).is_ok_and(|meta| meta.len() <= MAX_IMAGE_BYTES);
    let images: Vec<PathBuf> = last_images(&run.path).into_iter().filter(is_small).take(MAX_IMAGES).collect();
    let results = lerobot::read_results(&run.path).unwrap_or_default();
    let base = run.last_session().and_then(|session| session.working_dir.clone()).unwrap_or_default();
    let videos: Vec<PathBuf> =
        results.into_iter().flat_map(|result| result.videos).map(|video| base.join(video)).collect();
    let folder = out.parent().unwrap_or(Path::new(""));
    Ok(page.media(folder, &images, &videos)?)
}

/// The metrics that the user names; else those that the runs rank themselves by or draw.
fn drawn_metrics(compared: &Compared, named: &[String]) -> Vec<String> {
    if !named.is_empty() {
        return named.to_vec();
    }
    let mut metrics = vec![compared.metrics[0].name.clone()];
    let specs = compared.entries.iter().flat_map(|entry| &entry.run.manifest.metrics);
    for spec in specs.filter(|spec| spec.better.is_some() || spec.curve.is_some()) {
        let is_recorded = || compared.entries.iter().any(|entry| names(&entry.rows).contains(spec.name.as_str()));
        if !metrics.contains(&spec.name) && is_recorded() {
            metrics.push(spec.name.clone());
        }
    }
    metrics.truncate(MAX_PLOTS);
    metrics
}
