//! The folder of checkpoints: which one a path means, the pointers to the newest and the best, and what becomes of old ones.

use super::{BEST, LAST, Manifest, STATE};
use crate::{
    error::{Result, TrainError},
    resume::RESUME_KEY,
};
use hlrp_config::foreign::read_text;
use hlrp_config::write_path;
use hlrp_schema::laq_encoder;
use hlrp_track::fs::Superseded;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

const PREFIX: &str = "step-";

/// Folder name of the checkpoint of `step`, such as `step-000080`.
pub fn checkpoint_name(step: u64) -> String {
    format!("{PREFIX}{step:06}")
}

/// The step in a checkpoint's folder name; `None` for any other name.
fn step_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// The checkpoint of `path`: itself, or the newest of a run directory or of its `checkpoints` folder.
///
/// # Errors
/// [`TrainError::NotACheckpoint`] when there is none.
pub fn find(path: &Path) -> Result<PathBuf> {
    let none = |reason: &str| TrainError::NotACheckpoint { path: path.to_path_buf(), reason: reason.to_owned() };
    if !path.is_dir() {
        return Err(none(if path.exists() { "it is not a folder" } else { "it does not exist" }));
    }
    let checkpoints = path.join("checkpoints");
    if checkpoints.is_dir() {
        return follow(&checkpoints)?.ok_or_else(|| {
            none("this run has not finished a checkpoint, so there is nothing to resume: start it again")
        });
    }
    if let Some(checkpoint) = follow(path)? {
        return Ok(checkpoint);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_checkpoint = step_of(&name).is_some() || (path.join(STATE).is_file() && Manifest::path(path).is_some());
    match is_checkpoint {
        true => Ok(path.to_path_buf()),
        false if is_encoder(path) => Err(none(
            "it has the encoder and the quantizer of a latent action model alone, as `hlrp export-laq` writes them: not a checkpoint",
        )),
        false => Err(none("it contains neither a checkpoint nor a run")),
    }
}

/// Whether a folder is what `hlrp export-laq` makes of a checkpoint.
fn is_encoder(folder: &Path) -> bool {
    let text = read_text(&folder.join(laq_encoder::DESCRIPTION)).unwrap_or_default();
    serde_json::from_str(&text).is_ok_and(|value: Value| value["format"] == laq_encoder::FORMAT)
}

/// The checkpoint that `checkpoints/last` names; `None` without a pointer.
fn follow(checkpoints: &Path) -> Result<Option<PathBuf>> {
    let Some(name) = read_pointer(checkpoints, LAST)? else { return Ok(None) };
    let target = checkpoints.join(&name);
    if target.is_dir() {
        return Ok(Some(target));
    }
    let hint = whole_neighbour(&target);
    Err(TrainError::Damaged { path: target, reason: format!("the folder that {LAST} names is missing"), hint })
}

/// Name of the checkpoint that `pointer` names.
fn read_pointer(checkpoints: &Path, pointer: &str) -> Result<Option<String>> {
    let path = checkpoints.join(pointer);
    if !path.is_file() {
        return Ok(None);
    }
    let name = read_text(&path).map_err(TrainError::io("read", &path))?.trim().to_owned();
    match step_of(&name) {
        Some(_) => Ok(Some(name)),
        None => Err(TrainError::Malformed { path, reason: format!("'{name}' is not the name of a checkpoint") }),
    }
}

/// Makes `pointer` name the checkpoint of `step`.
pub(super) fn point_to(checkpoints: &Path, pointer: &str, step: u64) -> Result<()> {
    Ok(hlrp_track::fs::write_atomic(&checkpoints.join(pointer), format!("{}\n", checkpoint_name(step)))?)
}

/// Steps of the checkpoints in a folder, newest first.
fn steps(checkpoints: &Path) -> Vec<u64> {
    let names =
        fs::read_dir(checkpoints).into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut steps: Vec<u64> = names.filter_map(|name| step_of(&name)).collect();
    steps.sort_unstable_by(|a, b| b.cmp(a));
    steps
}

/// A hint that names a whole checkpoint next to `damaged`: the newest one before it, else the newest one after it.
pub(super) fn whole_neighbour(damaged: &Path) -> String {
    let Some(checkpoints) = damaged.parent() else { return "there is no other checkpoint next to it".to_owned() };
    let own = damaged.file_name().and_then(|name| step_of(&name.to_string_lossy()));
    let (newer, older): (Vec<u64>, Vec<u64>) = steps(checkpoints).into_iter().partition(|step| Some(*step) > own);
    let others = older.into_iter().chain(newer).filter(|step| Some(*step) != own);
    match others.map(|step| checkpoints.join(checkpoint_name(step))).find(|dir| Manifest::is_whole(dir)) {
        Some(whole) => format!("{} is whole: {RESUME_KEY}={}", whole.display(), write_path(&whole)),
        None => "no other checkpoint of this run is whole; start a new run".to_owned(),
    }
}

/// Keeps the newest `keep_last` checkpoints of the folder, and those that `last` and `best` name; puts away the other whole
/// checkpoints `step-*`. Anything else in the folder stays.
///
/// # Errors
/// The system refuses.
pub(super) fn prune(checkpoints: &Path, keep_last: usize, superseded: &Superseded) -> Result<()> {
    let pointed = [read_pointer(checkpoints, LAST)?, read_pointer(checkpoints, BEST)?];
    for step in steps(checkpoints).into_iter().skip(keep_last) {
        let name = checkpoint_name(step);
        let dir = checkpoints.join(&name);
        if pointed.iter().flatten().any(|kept| *kept == name) || Manifest::read(&dir).is_err() {
            continue;
        }
        match superseded.put_away(&dir)? {
            None => {
                tracing::info!("removed checkpoint {} (training.checkpoint.keep_last = {keep_last})", dir.display())
            }
            Some(kept) => tracing::info!(
                "moved checkpoint {} to {} (training.checkpoint.keep_last = {keep_last})",
                dir.display(),
                kept.display()
            ),
        }
    }
    Ok(())
}
