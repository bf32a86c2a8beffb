//! All steps of a pipeline, in their order.
//!
//! Each runs from the inputs that it had then, not from what the step before it makes now: a drift shows in the steps that cause it.
//! Where every step matches to the last bit, so does the pipeline.

use super::{Outcome, Prepared, ReproduceOptions, Reproduction, report};
use crate::{
    HINTS,
    error::CommandError,
    pipeline::run_dirs,
    runs::{Run, one_run},
};
use anyhow::Result;
use hlrp_config::Problem;
use hlrp_track::{console, exit_code, fs::write_json, signals::StopSignals, table::ResultTable};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A step of the pipeline.
struct Step {
    name: String,
    state: State,
}

/// What is known of it.
enum State {
    /// The pipeline was stopped before it.
    NotRunThen,
    Cannot(Vec<String>),
    Ready(Box<Reproduction>),
    Ended(Outcome),
}

/// Runs every step of `pipeline` that can be run again into a folder of `out`, says how each compares, and returns the exit code.
///
/// # Errors
/// The record of the pipeline is damaged, no step of it has run, `out` is not empty, or a program cannot be started.
pub(super) fn reproduce(pipeline: &Run, out: &Path, options: &ReproduceOptions) -> Result<u8> {
    refuse_occupied(out)?;
    let run_dirs = run_dirs(&pipeline.path)?;
    let mut steps: Vec<Step> = run_dirs.into_iter().map(|(name, run_dir)| step(name, run_dir, out, options)).collect();
    if steps.iter().all(|step| matches!(step.state, State::NotRunThen)) {
        let hint = format!("hlrp pipeline --resume {}", pipeline.path.display());
        return Err(CommandError::new("no step of this pipeline has run", hint).into());
    }
    if options.dry_run {
        for step in &steps {
            report::line("step", &step.name);
            match &step.state {
                State::Ready(reproduction) => report::ready(&reproduction.again),
                State::Cannot(reasons) => report::cannot(reasons),
                State::NotRunThen | State::Ended(_) => report::line(step.verdict(), &step.text()),
            }
        }
        return Ok(exit_code(&steps));
    }
    run(&mut steps, options.tolerance)?;
    let table = ResultTable::new(["step", "verdict", "what"]);
    let table = steps.iter().fold(table, |table, step| table.row([&step.name, step.verdict(), &step.text()]));
    console::print(&format!("\n{}", table.to_text()));
    report::line("then", &pipeline.path.display().to_string());
    report::line("now", &out.display().to_string());
    if out.is_dir() {
        let step = |step: &Step| json!({ "step": step.name, "verdict": step.verdict(), "text": step.text() });
        let steps: Vec<_> = steps.iter().map(step).collect();
        let value = json!({ "run": pipeline.path, "tolerance": options.tolerance, "steps": steps });
        write_json(&out.join(report::FILE_NAME), &value)?;
    }
    Ok(exit_code(&steps))
}

/// A step that ran in `run_dir`, compared with what there is now. One whose records are damaged cannot be run again.
fn step(name: String, run_dir: Option<PathBuf>, out: &Path, options: &ReproduceOptions) -> Step {
    let prepare = |run_dir: PathBuf| Prepared::of(one_run(&run_dir)?, out.join(&name), options);
    let state = match run_dir.map(prepare) {
        None => State::NotRunThen,
        Some(Ok(Prepared::Ready(reproduction))) => State::Ready(reproduction),
        Some(Ok(Prepared::Cannot(reasons))) => State::Cannot(reasons),
        Some(Err(error)) => State::Cannot(vec![console::message_and_hints(error.as_ref(), HINTS).0]),
    };
    Step { name, state }
}

/// Runs each step that is ready, until a signal comes.
fn run(steps: &mut [Step], tolerance: f64) -> Result<()> {
    let signals = StopSignals::listen()?;
    for Step { name, state } in steps {
        if signals.is_requested() {
            break;
        }
        report::line("step", name);
        match state {
            State::Ready(reproduction) => *state = State::Ended(reproduction.run(&signals, tolerance)?),
            State::Cannot(reasons) => report::cannot(reasons),
            State::NotRunThen | State::Ended(_) => {}
        }
    }
    Ok(())
}

impl Step {
    fn verdict(&self) -> &'static str {
        match &self.state {
            State::NotRunThen => "–",
            State::Cannot(_) => "cannot",
            State::Ready(_) => "ready",
            State::Ended(Outcome::Compared(comparison)) => comparison.verdict.name(),
            State::Ended(Outcome::Failed(_)) => "failed",
        }
    }

    fn text(&self) -> String {
        match &self.state {
            State::NotRunThen => "the pipeline was stopped before it".to_owned(),
            State::Cannot(reasons) => reasons.join("; "),
            State::Ready(_) => "not run, because a signal came".to_owned(),
            State::Ended(Outcome::Compared(comparison)) => comparison.verdict.text().to_owned(),
            State::Ended(Outcome::Failed(code)) => format!("ended with exit code {code} this time"),
        }
    }

    fn exit_code(&self) -> u8 {
        match &self.state {
            State::NotRunThen | State::Ready(_) => 0,
            State::Cannot(_) => exit_code::CANNOT_REPRODUCE,
            State::Ended(outcome) => outcome.exit_code(),
        }
    }
}

/// That of the first program that failed; else a drift counts more than a step that cannot be run again.
fn exit_code(steps: &[Step]) -> u8 {
    let codes: Vec<u8> = steps.iter().map(Step::exit_code).collect();
    let is_verdict = |code: &u8| [0, exit_code::CANNOT_REPRODUCE, exit_code::DRIFT].contains(code);
    let failed = codes.iter().copied().find(|code| !is_verdict(code));
    failed.unwrap_or_else(|| codes.iter().copied().max().unwrap_or(0))
}

/// The programs refuse an occupied folder of their own; this is the one around them.
fn refuse_occupied(out: &Path) -> Result<(), Problem> {
    match fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) {
        true => Err(Problem::new("--out", format!("{} is not empty", out.display()), "choose another directory")),
        false => Ok(()),
    }
}
