//! Whether a run can be run again: its inputs, its datasets and the programs are those of then.

use super::again::Again;
use crate::{
    programs::{Program, TRAIN_LAQ, TRAIN_VLA, data_source},
    runs::Run,
};
use anyhow::Result;
use hlrp_config::foreign::read_text;
use hlrp_schema::Stage;
use hlrp_track::run::{Artifact, DataSource, Session};
use serde_json::Value;
use std::{collections::BTreeMap, path::PathBuf};

/// What differs from then.
pub(super) struct Findings {
    pub(super) inputs: Vec<String>,
    pub(super) versions: Vec<String>,
}

/// Compares everything that can be compared before the run.
///
/// # Errors
/// A program does not say its version, or a checkpoint of the run is damaged.
pub(super) fn check(run: &Run, again: &Again) -> Result<Findings> {
    let mut inputs = Vec::new();
    if run.metrics()?.is_empty() {
        inputs.push("the run has recorded no metrics to compare with".to_owned());
    }
    for key in again.secrets() {
        inputs.push(format!("{key} contains a secret, which no run records"));
    }
    let Some(session) = run.manifest.sessions.first() else { return Ok(Findings { inputs, versions: Vec::new() }) };
    inputs.extend(session.inputs.iter().filter_map(|input| changed_input(input, again)));
    for (name, source) in data(run, session, again) {
        inputs.extend(changed_data(&name, &source, again));
    }
    Ok(Findings { inputs, versions: versions(session, again)? })
}

/// How an input differs from what the run started from.
fn changed_input(input: &Artifact, again: &Again) -> Option<String> {
    let path = again.working_dir.join(&input.path);
    let Artifact { role, sha256: then, .. } = input;
    let then = then.as_ref()?;
    if !path.exists() {
        return Some(format!("{role}: {} does not exist any more", path.display()));
    }
    let now = Artifact::of(role.as_str(), &path).sha256;
    let short = |digest: &str| digest.get(..12).unwrap_or(digest).to_owned();
    match now {
        Some(now) if now == *then => None,
        Some(now) => Some(format!(
            "{role}: {} has other weights (sha256 {}… instead of {}…)",
            path.display(),
            short(&now),
            short(then)
        )),
        None => Some(format!("{role}: {} contains no weights any more", path.display())),
    }
}

/// The datasets of the run: as it records them, or as its checkpoint does in runs of format 2.
fn data(run: &Run, session: &Session, again: &Again) -> BTreeMap<String, DataSource> {
    if !session.data.is_empty() {
        return session.data.clone();
    }
    let checkpoints = run.path.join("checkpoints");
    let state = read_text(&checkpoints.join("last"))
        .and_then(|name| read_text(&checkpoints.join(name.trim()).join("state.json")))
        .ok()
        .and_then(|text| serde_json::from_str::<Value>(&text).ok())
        .unwrap_or_default();
    let sources = state["sources"].as_object().cloned().unwrap_or_default();
    let source = |(name, source): (String, Value)| {
        let root = again.config.tree().get(&format!("data.sources.{name}.root"))?.as_str()?;
        let fingerprint = source["fingerprint"].as_str()?.to_owned();
        let num_episodes = source["num_episodes"].as_u64()?;
        Some((
            name,
            DataSource {
                root: PathBuf::from(root),
                repo_id: None,
                commit: None,
                fingerprint,
                num_episodes,
                labels: None,
            },
        ))
    };
    sources.into_iter().filter_map(source).collect()
}

fn changed_data(name: &str, then: &DataSource, again: &Again) -> Option<String> {
    let root = again.working_dir.join(&then.root);
    if !root.exists() {
        return Some(format!("dataset {name}: {} does not exist any more", root.display()));
    }
    match data_source(&root) {
        Some(now) if now.fingerprint == then.fingerprint => None,
        Some(now) => Some(format!(
            "dataset {name}: {} has other content (fingerprint {} instead of {}; {} episodes, then {})",
            root.display(),
            now.fingerprint,
            then.fingerprint,
            now.num_episodes,
            then.num_episodes
        )),
        None => Some(format!("dataset {name}: {} cannot be read; hlrp data check names the reason", root.display())),
    }
}

/// The programs that have other versions than those of then.
fn versions(session: &Session, again: &Again) -> Result<Vec<String>> {
    let program: &Program = match again.stage {
        Stage::Laq | Stage::LaqAnalysis => &TRAIN_LAQ,
        Stage::Vla => &TRAIN_VLA,
        // Those of LeRobot are known when it has run.
        Stage::LerobotTrain | Stage::LerobotRollout | Stage::Pipeline => return Ok(Vec::new()),
    };
    let now = program.ask("--version-json")?;
    let mut changed = Vec::new();
    for (name, field) in [("hlrp", "version"), ("libtorch", "libtorch")] {
        if let (Some(then), Some(now)) = (session.versions.get(name), now[field].as_str())
            && then != now
        {
            changed.push(format!("{name} has version {now}; then it was {then} (--accept-other-versions)"));
        }
    }
    Ok(changed)
}

/// What else has changed since, as far as both runs record it: it may be the cause of a drift.
pub(super) fn changes(then: &Run, now: &Run) -> Vec<String> {
    let (Some(then), Some(now)) = (then.manifest.sessions.first(), now.last_session()) else { return Vec::new() };
    let mut changes = Vec::new();
    let mut note = |what: &str, then: Option<String>, now: Option<String>| {
        if let (Some(then), Some(now)) = (then, now)
            && then != now
        {
            changes.push(format!("{what}: {then} → {now}"));
        }
    };
    for (name, version) in &then.versions {
        note(name, Some(version.clone()), now.versions.get(name).cloned());
    }
    let commit = |session: &Session| {
        let git = session.git.as_ref()?;
        let changed = if git.dirty { " with changes" } else { "" };
        Some(format!("{}{changed}", git.commit.get(..12).unwrap_or(&git.commit)))
    };
    note("commit", commit(then), commit(now));
    let cpu = |session: &Session| session.devices.as_ref().map(|devices| devices.cpu.clone());
    note("CPU", cpu(then), cpu(now));
    let gpus = |session: &Session| session.devices.as_ref().map(|devices| devices.gpus.join(", "));
    note("GPUs", gpus(then), gpus(now));
    note("CPU threads", Some(then.num_threads.to_string()), Some(now.num_threads.to_string()));
    changes
}
