//! What a resumed training may change.

use anyhow::Result;
use hlrp_config::{Composed, Difference, Problem, ProblemKind, diff, from_resolved};
use hlrp_schema::PROJECT;
use hlrp_track::run::{Manifest, RunStatus};
use std::path::Path;

/// The configuration of a run, in its directory.
pub(super) const CONFIG: &str = "config.yaml";

/// Keys of section `lerobot` that it may change.
const CHANGEABLE: [&str; 12] = [
    "steps",
    "num_workers",
    "env_eval_freq",
    "log_freq",
    "save_freq",
    "wandb_enable",
    "extra_args",
    "command",
    "python",
    "install_policy_editable",
    "num_processes",
    "env",
];

/// Keys outside of section `lerobot` that it may change: LeRobot's flags no longer depend on the others.
const CHANGEABLE_BESIDES: [&str; 7] = [
    "cluster",
    "num_threads",
    "logging.level",
    "logging.min_free_gb",
    "logging.min_free_files",
    "logging.use_wandb",
    "logging.wandb",
];

/// What it may change, for help and hints.
pub(super) fn changeable() -> String {
    format!("below lerobot: {}; besides: {}", CHANGEABLE.join(", "), CHANGEABLE_BESIDES.join(", "))
}

/// Whether it may change a key.
fn is_changeable(key: &str) -> bool {
    let is_inside = |section: &str, key: &str| {
        key.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    match key.strip_prefix("lerobot.") {
        Some(key) => CHANGEABLE.iter().any(|field| is_inside(field, key)),
        None => CHANGEABLE_BESIDES.iter().any(|section| is_inside(section, key)),
    }
}

/// # Errors
/// The configuration differs from that of the run in what a resumed training does not read.
pub(super) fn refuse_other_changes(run_dir: &Path, composed: &Composed) -> Result<()> {
    let former = from_resolved(&PROJECT, &run_dir.join(CONFIG), &[])?;
    let differences = diff(&former, composed);
    let changes: Vec<String> = differences
        .iter()
        .filter(|difference| !is_changeable(&difference.key))
        .map(|Difference { key, left, right }| {
            let [was, is] = [left, right].map(|side| side.as_deref().unwrap_or("absent"));
            format!("{key} was {was}, is {is}")
        })
        .collect();
    if changes.is_empty() {
        return Ok(());
    }
    let hint = format!(
        "changeable {}; for anything else start a new run, from this one's policy with lerobot.policy_path=...",
        changeable()
    );
    let message = format!("a resumed training keeps the settings of its checkpoint: {}", changes.join("; "));
    Err(Problem::of(ProblemKind::Value, message).hint(hint).into())
}

/// A run killed after its last checkpoint has no steps left and only needs to be finalised.
///
/// # Errors
/// There is no step left, and the run has finished.
pub(super) fn refuse_done_steps(run_dir: &Path, steps: u64, start_step: u64) -> Result<()> {
    let is_finished = || {
        let last = Manifest::read(run_dir).ok().and_then(|manifest| manifest.sessions.into_iter().next_back());
        last.is_some_and(|session| session.status == RunStatus::Finished)
    };
    if steps > start_step || (steps == start_step && !is_finished()) {
        return Ok(());
    }
    let message = format!("{steps} leaves nothing to do: the last checkpoint is of step {start_step}");
    Err(Problem::new("lerobot.steps", message, format!("set it above {start_step} to train on")).into())
}
