//! `hlrp reproduce`: runs a run again from its records, and says whether the same comes out.
//!
//! | question | module |
//! |---|---|
//! | Are its inputs and programs those of then? | [`preconditions`] |
//! | How is it started again? | [`again`] |
//! | Is what came out the same? | [`verdict`], printed and written by [`report`] |
//! | And all steps of a pipeline? | [`steps`] |

mod again;
mod preconditions;
mod report;
mod steps;
mod verdict;

use crate::{
    error::CommandError,
    runs::{Run, one_run},
};
use again::Again;
use anyhow::{Context, Result};
use clap::Args;
use hlrp_schema::{Stage, refuse_named_output};
use hlrp_track::{console, exit_code, signals::StopSignals};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};
use verdict::Comparison;

const EXAMPLES: &str = "\
Examples:
  hlrp reproduce runs/2026-01-31_12-00-00_laq_tiny
  hlrp reproduce runs/2026-01-31_12-00-00_laq_tiny --dry-run                  check inputs, data and versions only
  hlrp reproduce runs/2026-01-31_12-00-00_laq_tiny --tolerance 1e-4           on another machine
  hlrp reproduce runs/2026-01-31_12-00-00_pipeline_tiny                       every step, each from the inputs that it had

Exit codes: 0 match, 66 cannot (an input, dataset or version differs), 70 drift; else that of the program that ran. Of a pipeline: 70 if
any step drifts, else 66 if any step cannot be run again, else 0.";

/// Options of `hlrp reproduce`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ReproduceOptions {
    /// A run directory; that of a pipeline stands for its steps.
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
    let path = options.run.canonicalize().unwrap_or_else(|_| options.run.clone());
    let run = one_run(&path)?;
    let here = std::env::current_dir().context("cannot find the current folder")?;
    let out = here.join(options.out.clone().unwrap_or_else(|| beside(&path)));
    refuse_named_output("--out", &out)?;
    if Stage::of(&run.config()?)? == Stage::Pipeline {
        return Ok(ExitCode::from(steps::reproduce(&run, &out, options)?));
    }
    Ok(ExitCode::from(match Prepared::of(run, out, options)? {
        Prepared::Cannot(reasons) => {
            report::cannot(&reasons);
            exit_code::CANNOT_REPRODUCE
        }
        Prepared::Ready(reproduction) if options.dry_run => {
            report::ready(&reproduction.again);
            0
        }
        Prepared::Ready(reproduction) => reproduction.run(&StopSignals::listen()?, options.tolerance)?.exit_code(),
    }))
}

/// `<run>_reproduced`, with a number where that exists.
fn beside(run: &Path) -> PathBuf {
    let name = run.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let numbered = (2..).map(|number| format!("{name}_reproduced_{number}"));
    let mut names = std::iter::once(format!("{name}_reproduced")).chain(numbered);
    let free = names.find(|name| !run.with_file_name(name).exists());
    run.with_file_name(free.unwrap_or(name))
}

/// Whether a run can be run again.
enum Prepared {
    Ready(Box<Reproduction>),
    /// For these reasons it cannot.
    Cannot(Vec<String>),
}

impl Prepared {
    /// Compares everything that can be compared before the run.
    ///
    /// # Errors
    /// The records of the run are damaged, or a program does not say its version.
    fn of(then: Run, out: PathBuf, options: &ReproduceOptions) -> Result<Self> {
        let again = Again::of(&then, out)?;
        let found = preconditions::check(&then, &again)?;
        let (versions, mut reasons) = (found.versions, found.inputs);
        if options.accept_other_versions {
            versions.iter().for_each(|reason| report::line("note", reason));
        } else {
            reasons.extend(versions);
        }
        Ok(if reasons.is_empty() { Self::Ready(Box::new(Reproduction { then, again })) } else { Self::Cannot(reasons) })
    }
}

/// A run that is about to be run again.
struct Reproduction {
    then: Run,
    again: Again,
}

/// What came of it.
enum Outcome {
    Compared(Comparison),
    /// The program ended with this exit code.
    Failed(u8),
}

impl Outcome {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Compared(comparison) if comparison.verdict.is_match() => 0,
            Self::Compared(_) => exit_code::DRIFT,
            Self::Failed(code) => *code,
        }
    }
}

impl Reproduction {
    /// Runs it, and says what came out.
    ///
    /// # Errors
    /// The program cannot be started, or what it recorded cannot be read.
    fn run(&self, signals: &StopSignals, tolerance: f64) -> Result<Outcome> {
        let code = self.again.run(signals)?;
        if code != 0 {
            let log = Some(self.again.run_dir.join("unified.log")).filter(|log| log.is_file());
            let and_log = log.map(|log| format!(" and {}", log.display())).unwrap_or_default();
            let message = format!("the run ended with exit code {code} this time");
            let error = CommandError::new(message, format!("see its output above{and_log}"));
            console::report_error(&error, crate::HINTS);
            return Ok(Outcome::Failed(code));
        }
        let now = one_run(&self.again.run_dir)?;
        let comparison = Comparison::of(&self.then, &now, tolerance)?;
        let changes = preconditions::changes(&self.then, &now);
        report::compared(&self.then, &now, &comparison, &changes);
        report::write(&self.then, &now, &comparison, &changes, tolerance)?;
        Ok(Outcome::Compared(comparison))
    }
}
