//! How a verdict is printed, and the file that has it.

use super::{
    again::Again,
    verdict::{Comparison, Difference},
};
use crate::runs::Run;
use anyhow::Result;
use hlrp_track::{console, fs::write_json, metrics::FILE_NAME as METRICS, table::ResultTable};
use serde_json::{Value, json};

/// What the verdict is written to, in the new run.
pub(super) const FILE_NAME: &str = "reproduction.json";
/// Metrics in the table of a drift.
const SHOWN: usize = 12;
/// Columns of the word before a line.
const WORD: usize = 11;

/// Prints a line after a word, such as the verdict.
pub(super) fn line(word: &str, text: &str) {
    console::print(&format!("{word:<WORD$}{text}"));
}

/// Prints why a run cannot be run again.
pub(super) fn cannot(reasons: &[String]) {
    line("cannot", &reasons.join(&format!("\n{:WORD$}", "")));
}

/// Prints the command of a run that can be run again.
pub(super) fn ready(again: &Again) {
    line("ready", "inputs, data and versions are those of then");
    console::print(&again.to_shell());
}

/// Prints how two runs compare; `changes` may be the cause of a drift.
pub(super) fn compared(then: &Run, now: &Run, comparison: &Comparison, changes: &[String]) {
    line(comparison.verdict.name(), comparison.verdict.text());
    let shown = comparison.differences.iter().take(SHOWN);
    let table = ResultTable::new(["metric", "from step", "then", "now", "largest relative difference"]);
    let table = shown.fold(table, |table, found| table.row(cells(found)));
    if !table.is_empty() {
        console::print(&table.to_text());
    }
    if let Some(num) = comparison.differences.len().checked_sub(SHOWN).filter(|num| *num > 0) {
        line("", &format!("and {num} more metrics"));
    }
    changes.iter().for_each(|change| line("changed", change));
    if !comparison.new_metrics.is_empty() {
        line("changed", &format!("not recorded then: {}", comparison.new_metrics.join(", ")));
    }
    line("then", &then.path.display().to_string());
    line("now", &now.path.display().to_string());
}

fn cells(found: &Difference) -> [String; 5] {
    let text = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
    [
        found.metric.clone(),
        found.step.to_string(),
        text(found.then.map(|value| value.to_string())),
        text(found.now.map(|value| value.to_string())),
        text(found.largest.map(|value| format!("{value:.1e}"))),
    ]
}

/// Writes the verdict into the new run.
///
/// # Errors
/// The system refuses.
pub(super) fn write(then: &Run, now: &Run, comparison: &Comparison, changes: &[String], tolerance: f64) -> Result<()> {
    let difference = |found: &Difference| {
        json!({
            "metric": found.metric, "step": found.step, "then": found.then, "now": found.now,
            "largest_relative_difference": found.largest,
        })
    };
    let differences: Vec<Value> = comparison.differences.iter().map(difference).collect();
    let Comparison { verdict, num_values, new_metrics, .. } = comparison;
    let value = json!({
        "run": then.path, "verdict": verdict.name(), "text": verdict.text(), "tolerance": tolerance,
        "num_values": num_values, "differences": differences, "changed": changes, "new_metrics": new_metrics,
        "metrics": METRICS,
    });
    Ok(write_json(&now.path.join(FILE_NAME), &value)?)
}
