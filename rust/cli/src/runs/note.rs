//! `hlrp runs note`: a note about a run, with its figures filled in and room for what they mean.
//!
//! The figures stand between two marks, the first of which has their digest. A second call brings them up to date and leaves everything else
//! as it is; figures that somebody has edited are never replaced.

use super::{find, record::Run, show};
use anyhow::{Context, Result};
use clap::Args;
use hlrp_config::{Problem, foreign::read_text, secret::redact};
use hlrp_schema::refuse_named_output;
use hlrp_track::{
    console,
    fs::{sha256_of, write_atomic},
    metrics::MetricsRow,
    table::ResultTable,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Opens the figures; their digest follows.
const BEGIN: &str = "<!-- figures by hlrp runs note, sha256 ";
/// Ends that line.
const BEGIN_END: &str = " -->";
/// Closes the figures.
const END: &str = "<!-- end of the figures -->";
/// Digits of the digest.
const DIGITS: usize = 16;
/// What a writer replaces.
pub(super) const PLACEHOLDER: &str = "_To be written._";
/// Facts that are not in its table: the command has a place of its own, and the folder is one of this machine.
const LEFT_OUT: [&str; 2] = ["command", "in"];
/// The heading below which the outcome is written.
pub(super) const OUTCOME: &str = "## Outcome";

/// Options of `hlrp runs note`.
#[derive(Debug, Args)]
pub(crate) struct NoteOptions {
    /// A run directory.
    run: PathBuf,
    /// The note, or the folder for it.
    #[arg(long, value_name = "FILE.md|DIR", default_value = "docs/runs")]
    out: PathBuf,
}

pub(super) fn note(options: &NoteOptions) -> Result<ExitCode> {
    let run = find::one_run(&options.run)?;
    refuse_named_output("--out", &options.out)?;
    let rows = run.metrics()?;
    let path = target(&options.out, &run)?;
    let figures = figures(&run, &rows)?;
    let (text, done) = match read_text(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => (new_note(&run, &figures), "written"),
        former => {
            let former = former.with_context(|| format!("cannot read {}", path.display()))?;
            let text = with_figures(&former, &figures).map_err(|reason| edited(&path, reason))?;
            if text == former {
                console::print(&format!("{} is up to date", path.display()));
                return Ok(ExitCode::SUCCESS);
            }
            (text, "brought up to date; what you wrote is unchanged")
        }
    };
    write_atomic(&path, text)?;
    console::print(&format!("{}: {done}", path.display()));
    Ok(ExitCode::SUCCESS)
}

/// The file of the note.
fn target(out: &Path, run: &Run) -> Result<PathBuf> {
    if out.extension().is_some_and(|extension| extension == "md") {
        return Ok(out.to_path_buf());
    }
    fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    Ok(out.join(format!("{}.md", note_name(run))))
}

/// The name of the run; that of a step of a pipeline includes the pipeline's.
fn note_name(run: &Run) -> String {
    let absolute = run.path.canonicalize().unwrap_or_else(|_| run.path.clone());
    let parent = absolute.parent().filter(|parent| hlrp_track::run::Manifest::path(parent).is_some());
    let parent = parent.and_then(|parent| Some(format!("{}_", parent.file_name()?.to_string_lossy())));
    let name = format!("{}{}", parent.unwrap_or_default(), run.name);
    let plain = |char: char| if char.is_ascii_alphanumeric() || "._-".contains(char) { char } else { '_' };
    name.chars().map(plain).collect()
}

fn edited(path: &Path, reason: &str) -> Problem {
    let message = format!("{} is not replaced: {reason}", path.display());
    Problem::new("--out", message, "choose another name with --out FILE.md, or move that note away")
}

fn new_note(run: &Run, figures: &str) -> String {
    let purpose = match run.manifest.description.as_str() {
        "" => PLACEHOLDER,
        description => description,
    };
    format!(
        "# {}\n\n{}\n\n## Purpose\n\n{purpose}\n\n{OUTCOME}\n\n{PLACEHOLDER}\n\n## What follows\n\n{PLACEHOLDER}\n",
        note_name(run),
        marked(figures)
    )
}

fn marked(figures: &str) -> String {
    format!("{BEGIN}{}{BEGIN_END}\n{figures}\n{END}", digest(figures))
}

fn digest(figures: &str) -> String {
    sha256_of(figures)[..DIGITS].to_owned()
}

/// The note with other figures.
///
/// # Errors
/// Why the present ones must stay.
fn with_figures(note: &str, figures: &str) -> Result<String, &'static str> {
    const NO_MARKS: &str = "it was not written by this command, or its marks are gone";
    let begin = note.find(BEGIN).ok_or(NO_MARKS)?;
    let rest = &note[begin + BEGIN.len()..];
    let (known, rest) = rest.split_once(BEGIN_END).ok_or(NO_MARKS)?;
    let (present, after) = rest.split_once(END).ok_or(NO_MARKS)?;
    if digest(present.trim_matches('\n')) != known {
        return Err("its figures have been edited");
    }
    Ok(format!("{}{}{after}", &note[..begin], marked(figures)))
}

/// What the run records, as Markdown.
fn figures(run: &Run, rows: &[MetricsRow]) -> Result<String> {
    let facts = show::facts(run, rows).into_iter().filter(|(name, _)| !LEFT_OUT.contains(&name.as_str()));
    let mut text = facts.fold(ResultTable::new(["record", "value"]), |table, (name, value)| {
        table.row([name, value.replace('|', "\\|")])
    });
    if let Some(score) = run.score(rows)? {
        text = text.row(["score", &score.text()]);
    }
    let mut parts = vec![text.to_markdown()];
    if let Some(session) = run.manifest.sessions.first() {
        parts.push(format!("    {}", show::command(session)));
    }
    let results = show::results(run, rows);
    if !results.is_empty() {
        parts.push(results.to_markdown());
    }
    parts.push(format!("Again: `hlrp reproduce {}`", run.path.display()));
    Ok(redact(&parts.join("\n\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_replaced_and_what_was_written_stays() -> Result<(), &'static str> {
        let note = format!("# a\n\n{}\n\n## Outcome\n\nMine.\n", marked("| loss | 1 |"));
        let newer = with_figures(&note, "| loss | 2 |")?;
        assert_eq!(newer, format!("# a\n\n{}\n\n## Outcome\n\nMine.\n", marked("| loss | 2 |")));
        assert_eq!(with_figures(&note, "| loss | 1 |")?, note);
        Ok(())
    }

    #[test]
    fn edited_figures_and_other_files_are_kept() {
        let note = format!("{}\n", marked("| loss | 1 |")).replace("| 1 |", "| 0 |");
        assert_eq!(with_figures(&note, "| loss | 2 |"), Err("its figures have been edited"));
        assert!(with_figures("# my note\n", "").is_err());
    }
}
