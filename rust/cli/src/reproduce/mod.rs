//! `hlrp reproduce`: runs a run again from its records, and says whether the same comes out.
//!
//! | question | module |
//! |---|---|
//! | Are its inputs and programs those of then? | [`preconditions`] |
//! | How is it started again? | [`again`] |
//! | Is what came out the same? | [`verdict`] |

mod again;
mod preconditions;
mod verdict;

use crate::{
    error::CommandError,
    runs::{Run, one_run},
};
use again::Again;
use anyhow::Result;
use clap::Args;
use hlrp_track::{console, exit_code, fs::write_json, metrics::FILE_NAME as METRICS, table::ResultTable};
use serde_json::json;
use std::{path::PathBuf, process::ExitCode};
use verdict::{Comparison, Verdict};

const EXAMPLES: &str = "\
Examples:
  hlrp reproduce runs/2026-01-31_12-00-00_laq_tiny
  hlrp reproduce runs/2026-01-31_12-00-00_laq_tiny --dry-run                  check inputs, data and versions only
  hlrp reproduce runs/2026-01-31_12-00-00_laq_tiny --tolerance 1e-4           on another machine

Exit codes: 0 match, 66 cannot (an input, dataset or version differs), 70 drift; else that of the program that ran.";

/// What the verdict is written to, in the new run.
const FILE_NAME: &str = "reproduction.json";
/// Metrics in the table of a drift.
const SHOWN: usize = 12;

/// Options of `hlrp reproduce`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ReproduceOptions {
    /// A run directory.
    run: PathBuf,
    /// Directory of the new run; by default beside the old one, with the ending _reproduced.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Largest relative difference of a value that still matches; 0 wants equal bits.
    #[arg(long, value_name = "RATIO", default_value_t = 0.0, value_parser = ratio)]
    tolerance: f64,
    /// Run it although the programs have other versions than those of then.
    #[arg(long)]
    accept_other_versions: bool,
    /// Check inputs, data and versions, print the command, and stop.
    #[arg(long)]
    dry_run: bool,
}

fn ratio(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..1.0).contains(&value) { Ok(value) } else { Err("it has to be at least 0 and below 1".to_owned()) }
}

/// Runs the command.
///
/// # Errors
/// The folder is not a run, its records are damaged, or the program cannot be started. A verdict is not an error.
pub(crate) fn reproduce(options: &ReproduceOptions) -> Result<ExitCode> {
    // The program changes to the folder that the run was started in.
    let run = one_run(&options.run.canonicalize().unwrap_or_else(|_| options.run.clone()))?;
    let again = Again::of(&run, options.out.as_deref())?;
    let found = preconditions::check(&run, &again)?;
    let (versions, mut reasons) = (found.versions, found.inputs);
    if options.accept_other_versions {
        versions.iter().for_each(|reason| console::print(&format!("{:<11}{reason}", "note")));
    } else {
        reasons.extend(versions);
    }
    if !reasons.is_empty() {
        console::print(&format!("{:<11}{}", "cannot", reasons.join(&format!("\n{:<11}", ""))));
        return Ok(ExitCode::from(exit_code::CANNOT_REPRODUCE));
    }
    if options.dry_run {
        console::print(&format!("{:<11}inputs, data and versions are those of then", "ready"));
        console::print(&again.to_shell());
        return Ok(ExitCode::SUCCESS);
    }
    let code = again.run()?;
    if code != 0 {
        let message = format!("the run ended with exit code {code} this time");
        let hint = format!("see its output above and {}", again.run_dir.join("unified.log").display());
        console::report_error(&CommandError::new(message, hint), crate::HINTS);
        return Ok(ExitCode::from(code));
    }
    let new = one_run(&again.run_dir)?;
    let comparison = Comparison::of(&run, &new, options.tolerance)?;
    let changes = preconditions::changes(&run, &new);
    report(&run, &new, &comparison, &changes, options.tolerance)?;
    Ok(match comparison.verdict {
        Verdict::Match { .. } => ExitCode::SUCCESS,
        Verdict::Drift { .. } => ExitCode::from(exit_code::DRIFT),
    })
}

/// Prints the verdict and writes it into the new run.
fn report(run: &Run, new: &Run, comparison: &Comparison, changes: &[String], tolerance: f64) -> Result<()> {
    let line = |name: &str, text: &str| console::print(&format!("{name:<11}{text}"));
    match &comparison.verdict {
        Verdict::Match { text } => line("match", text),
        Verdict::Drift { text } => {
            line("drift", text);
            let table = ResultTable::new(["metric", "from step", "then", "now", "largest relative difference"]);
            let rows = comparison.differences.iter().take(SHOWN);
            let table = rows.fold(table, |table, found| {
                table.row([
                    found.metric.clone(),
                    found.step.to_string(),
                    found.then.map_or_else(|| "–".to_owned(), |value| value.to_string()),
                    found.now.map_or_else(|| "–".to_owned(), |value| value.to_string()),
                    found.largest.map_or_else(|| "–".to_owned(), |value| format!("{value:.1e}")),
                ])
            });
            if !table.is_empty() {
                console::print(&table.to_text());
            }
            if let Some(num) = comparison.differences.len().checked_sub(SHOWN).filter(|num| *num > 0) {
                line("", &format!("and {num} more metrics"));
            }
        }
    }
    changes.iter().for_each(|change| line("changed", change));
    line("then", &run.path.display().to_string());
    line("now", &new.path.display().to_string());
    let differences: Vec<_> = comparison
        .differences
        .iter()
        .map(|found| {
            json!({
                "metric": found.metric, "step": found.step, "then": found.then, "now": found.now,
                "largest_relative_difference": found.largest,
            })
        })
        .collect();
    let (verdict, text) = match &comparison.verdict {
        Verdict::Match { text } => ("match", text),
        Verdict::Drift { text } => ("drift", text),
    };
    let value = json!({
        "run": run.path, "verdict": verdict, "text": text, "tolerance": tolerance, "num_values": comparison.num_values,
        "differences": differences, "changed": changes, "metrics": METRICS,
    });
    Ok(write_json(&new.path.join(FILE_NAME), &value)?)
}
