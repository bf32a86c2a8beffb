//! LeRobot's checkpoints: `<output>/checkpoints/<step>/{pretrained_model,training_state}`, `last` being a link to the newest.

use anyhow::{Context, Result, anyhow};
use hlrp_config::{Problem, foreign::read_text};
use hlrp_schema::is_hub_name;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The policy of a checkpoint.
const PRETRAINED_MODEL: &str = "pretrained_model";
/// The file that every saved policy has.
const POLICY_CONFIG: &str = "config.json";

/// Folder of the newest whole checkpoint below LeRobot's output folder.
pub(super) fn last_checkpoint(output_dir: &Path) -> Option<PathBuf> {
    let last = output_dir.join("checkpoints/last");
    let is_whole = last.join(PRETRAINED_MODEL).join(POLICY_CONFIG).is_file();
    is_whole.then(|| fs::canonicalize(&last).ok().and_then(|target| Some(last.with_file_name(target.file_name()?))))?
}

/// Folder of a checkpoint's policy.
pub(super) fn pretrained_model(checkpoint: &Path) -> PathBuf {
    checkpoint.join(PRETRAINED_MODEL)
}

/// Optimizer steps done at a checkpoint.
///
/// # Errors
/// The file with the step is missing or damaged.
pub(super) fn step(checkpoint: &Path) -> Result<u64> {
    let path = checkpoint.join("training_state/training_step.json");
    let text = read_text(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let value: Value = serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?;
    value["step"].as_u64().ok_or_else(|| anyhow!("{} has no `step` field", path.display()))
}

/// Optimizer steps of the training that wrote a policy, the folder of a checkpoint; 0 for any other policy.
pub(super) fn step_of_policy(policy: &Path) -> u64 {
    policy.parent().and_then(|checkpoint| step(checkpoint).ok()).unwrap_or(0)
}

/// LeRobot's output folder of a run of ours: where its configuration says, also after the run was moved.
pub(super) fn output_dir(run_dir: &Path, configured: &Path) -> PathBuf {
    let inside = configured.file_name().map(|name| run_dir.join(name));
    inside.filter(|path| path.is_dir()).unwrap_or_else(|| configured.to_path_buf())
}

/// The folder of the policy that `path` means: itself, that of a checkpoint, of the newest checkpoint of LeRobot's output folder, or
/// of a run of `hlrp train-lerobot`. A name on the Hub (`owner/name`) stays as it is. `key` names the setting in errors.
///
/// # Errors
/// There is no policy.
pub(super) fn policy_folder(key: &str, path: &Path, is_offline: bool) -> Result<PathBuf> {
    let none = |reason: &str| {
        let hint = "give a run directory of `hlrp train-lerobot`, a LeRobot checkpoint or its pretrained_model folder";
        Problem::new(key, format!("{} {reason}", path.display()), hint).into()
    };
    if !path.exists() {
        return if is_hub_name(path) && !is_offline { Ok(path.to_path_buf()) } else { Err(none("does not exist")) };
    }
    let candidates = [path.to_path_buf(), pretrained_model(path)];
    if let Some(folder) = candidates.into_iter().find(|folder| folder.join(POLICY_CONFIG).is_file()) {
        return Ok(folder);
    }
    newest_policy(path).ok_or_else(|| none("contains no checkpoint of a policy"))
}

/// Folder of the newest policy in a run of `hlrp train-lerobot`, or in LeRobot's own output folder.
pub(crate) fn newest_policy(run_dir: &Path) -> Option<PathBuf> {
    let outputs = fs::read_dir(run_dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let candidates = std::iter::once(run_dir.to_path_buf()).chain(outputs);
    let newest = candidates.filter_map(|output| last_checkpoint(&output)).max()?;
    Some(pretrained_model(&newest))
}
