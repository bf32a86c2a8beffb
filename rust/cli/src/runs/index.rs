//! `hlrp runs index`: a page that leads to all run notes and result tables.

use super::note::{OUTCOME, PLACEHOLDER};
use crate::error::CommandError;
use anyhow::{Context, Result};
use clap::Args;
use hlrp_config::{Problem, foreign::read_text};
use hlrp_schema::refuse_named_output;
use hlrp_track::{console, fs::write_atomic, table::ResultTable};
use std::{
    cmp::Reverse,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

const HEAD: &str = "\
# Experiments

Look here before a new experiment: what was tried, what came of it, and where its figures are. `hlrp runs index` writes this page;
`hlrp runs note RUN` writes a note, whose outcome is yours to add.
";

/// Options of `hlrp runs index`.
#[derive(Debug, Args)]
pub(crate) struct IndexOptions {
    /// Folder of the run notes. Result tables are in the folder results beside it.
    #[arg(value_name = "DIR", default_value = "docs/runs")]
    notes: PathBuf,
    /// The page; by default experiments.md beside the folder.
    #[arg(long, value_name = "FILE.md")]
    out: Option<PathBuf>,
    /// Write nothing; exit code 1 if the page is not up to date.
    #[arg(long)]
    check: bool,
}

/// What the page says of a note.
struct Entry {
    path: PathBuf,
    title: String,
    date: String,
    experiment: String,
    status: String,
    score: String,
    outcome: String,
}

pub(super) fn index(options: &IndexOptions) -> Result<ExitCode> {
    if !options.notes.is_dir() {
        let message = format!("there is no folder {}", options.notes.display());
        return Err(Problem::new("DIR", message, "write a note first: hlrp runs note RUN").into());
    }
    let docs = options.notes.parent().unwrap_or(Path::new(""));
    let out = options.out.clone().unwrap_or_else(|| docs.join("experiments.md"));
    refuse_named_output("--out", &out)?;
    let page = page(&options.notes, &docs.join("results"), out.parent().unwrap_or(Path::new("")))?;
    let former = read_text(&out).unwrap_or_default();
    if options.check && page != former {
        let hint = format!("hlrp runs index {}", options.notes.display());
        return Err(CommandError::new(format!("{} is not up to date", out.display()), hint).into());
    }
    if page != former {
        write_atomic(&out, page)?;
    }
    console::print(&format!("{} is up to date", out.display()));
    Ok(ExitCode::SUCCESS)
}

fn page(notes: &Path, results: &Path, from: &Path) -> Result<String> {
    let mut entries = markdown_files(notes)?.into_iter().map(entry).collect::<Result<Vec<_>>>()?;
    entries.sort_by_key(|entry| (Reverse(entry.date.clone()), entry.title.clone()));
    let mut text = HEAD.to_owned();
    if !entries.is_empty() {
        let table = ResultTable::new(["date", "note", "experiment", "status", "score", "outcome"]);
        let table = entries.into_iter().fold(table, |table, entry| {
            let link = link(&entry.title, &entry.path, from);
            table.row([entry.date, link, entry.experiment, entry.status, entry.score, entry.outcome])
        });
        text += &format!("\n## Runs\n\n{}\n", table.to_markdown());
    }
    let tables = if results.is_dir() { markdown_files(results)? } else { Vec::new() };
    if !tables.is_empty() {
        text += "\n## Result tables\n\n";
        for path in tables {
            let content = read(&path)?;
            let headings: Vec<&str> = content.lines().filter_map(|line| line.strip_prefix("## ")).collect();
            let title = content.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or("results");
            let about = if headings.is_empty() { String::new() } else { format!(": {}", headings.join("; ")) };
            text += &format!("- {}{about}\n", link(title, &path, from));
        }
    }
    Ok(text)
}

/// The Markdown files of a folder, by name.
fn markdown_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<String> {
    read_text(path).with_context(|| format!("cannot read {}", path.display()))
}

fn entry(path: PathBuf) -> Result<Entry> {
    let text = read(&path)?;
    // Rows of the figures: `| name | value |`.
    let fact = |name: &str| {
        let value = text.lines().find_map(|line| {
            let mut cells = line.strip_prefix('|')?.split(" |");
            (cells.next()?.trim() == name).then(|| cells.next().unwrap_or_default().trim().to_owned())
        });
        value.unwrap_or_default()
    };
    let outcome = text.split_once(OUTCOME).map_or("", |(_, rest)| rest.trim_start());
    let outcome = outcome.split("\n\n").next().unwrap_or_default().replace('\n', " ");
    let is_written = !outcome.is_empty() && !outcome.starts_with('#') && outcome.trim() != PLACEHOLDER;
    Ok(Entry {
        title: text.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or("note").to_owned(),
        date: fact("started").chars().take("2026-01-31".len()).collect(),
        experiment: fact("experiment"),
        status: fact("status").split([':', ',']).next().unwrap_or_default().to_owned(),
        score: fact("score"),
        outcome: if is_written { outcome.trim().to_owned() } else { "not written yet".to_owned() },
        path,
    })
}

/// A link to `path` in a file of the folder `from`.
fn link(title: &str, path: &Path, from: &Path) -> String {
    format!("[{title}]({})", path.strip_prefix(from).unwrap_or(path).display())
}
