//! Checkpoints, artifacts and policies: what a run starts from and what it leaves, each with the digest of its weights.

use crate::fs::FileDigest;
use hlrp_config::foreign::read_text;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The weights of a checkpoint, an artifact or a policy.
const WEIGHTS: &str = "model.safetensors";
/// What a checkpoint says of its files, and what format 1 called it.
const DESCRIPTIONS: [&str; 2] = ["checkpoint.json", "manifest.json"];

/// An input or an output of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// What it is for, such as `resume_from_checkpoint`, or what it is, such as `checkpoints/best`.
    pub role: String,
    /// Its path.
    pub path: PathBuf,
    /// SHA-256 of its weights, as hexadecimal digits; none where it has no weights of its own on this disk, such as a name on a hub.
    pub sha256: Option<String>,
}

impl Artifact {
    /// What is at `path` now: a file, a checkpoint, an artifact, a policy, or a run, of which it is the newest checkpoint or policy.
    pub fn of(role: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let sha256 = weights(&path).and_then(|weights| digest(&weights));
        Self { role: role.into(), path, sha256 }
    }
}

/// The file of weights that `path` means.
fn weights(path: &Path) -> Option<PathBuf> {
    if path.is_file() {
        return Some(path.to_path_buf());
    }
    let newest = [path.join("checkpoints"), path.to_path_buf()].into_iter().find_map(|folder| follow(&folder, "last"));
    let folders = newest.iter().flat_map(|newest| [newest.clone(), newest.join("pretrained_model")]);
    std::iter::once(path.to_path_buf()).chain(folders).map(|folder| folder.join(WEIGHTS)).find(|file| file.is_file())
}

/// The folder that a pointer beside it names: a text file of ours, or a link of LeRobot.
fn follow(checkpoints: &Path, pointer: &str) -> Option<PathBuf> {
    let pointer = checkpoints.join(pointer);
    if pointer.is_dir() {
        return Some(pointer);
    }
    Some(checkpoints.join(read_text(&pointer).ok()?.trim())).filter(|folder| folder.is_dir())
}

/// The digest that the checkpoint around `weights` records, or else that of the file now.
fn digest(weights: &Path) -> Option<String> {
    let recorded = DESCRIPTIONS.into_iter().find_map(|name| {
        let value: Value = serde_json::from_str(&read_text(&weights.with_file_name(name)).ok()?).ok()?;
        Some(value["files"][WEIGHTS]["sha256"].as_str()?.to_owned())
    });
    recorded.or_else(|| Some(FileDigest::of(weights).ok()?.sha256))
}

/// What the run in `run_dir` has left for others: the checkpoints that its pointers name, and its artifacts.
pub(super) fn outputs(run_dir: &Path) -> Vec<Artifact> {
    let checkpoints =
        ["last", "best"].map(|name| (format!("checkpoints/{name}"), follow(&run_dir.join("checkpoints"), name)));
    let artifacts = ["best", "final"].map(|name| {
        let role = format!("artifacts/{name}");
        let path = Some(run_dir.join(&role)).filter(|path| path.is_dir());
        (role, path)
    });
    let present = checkpoints.into_iter().chain(artifacts);
    present.filter_map(|(role, path)| Some(Artifact::of(role, path?))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;
    use crate::fs::sha256_of;
    use std::fs;

    #[test]
    fn a_run_a_checkpoint_and_a_file_have_the_digest_of_their_weights() {
        let run = tempfile::tempdir().unwrap();
        let checkpoint = run.path().join("checkpoints/step-000002");
        fs::create_dir_all(&checkpoint).unwrap();
        fs::write(checkpoint.join(WEIGHTS), "weights").unwrap();
        fs::write(run.path().join("checkpoints/last"), "step-000002\n").unwrap();
        let expected = Some(sha256_of("weights"));
        for path in [run.path().to_path_buf(), checkpoint.clone(), checkpoint.join(WEIGHTS)] {
            assert_eq!(Artifact::of("teacher", path).sha256, expected);
        }
        assert_eq!(Artifact::of("policy_path", "owner/name").sha256, None);
        let left = outputs(run.path());
        assert_eq!(left, [Artifact { role: "checkpoints/last".into(), path: checkpoint, sha256: expected }]);
    }
}
