//! Where a run's code came from, and what of its command line may be written down.

use serde::{Deserialize, Serialize};
use std::{path::Path, process::Command};

/// Commit of a working tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitState {
    /// Full commit id.
    pub commit: String,
    /// Whether tracked files differ from the commit.
    pub dirty: bool,
}

impl GitState {
    /// The state of the working tree around `folder`; nothing outside a repository or without git.
    pub fn of(folder: &Path) -> Option<Self> {
        let git = |arguments: &[&str]| {
            let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        let commit = git(&["rev-parse", "HEAD"])?;
        let dirty = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
        Some(Self { commit, dirty })
    }
}

/// Names whose values are secrets; they count as the end of an option's or a key's name.
const SECRET_NAMES: [&str; 5] = ["token", "password", "secret", "api_key", "credential"];
const REDACTED: &str = "***";

/// The arguments with the values of secrets replaced by `***`: `wandb.api_key=x`, `--token=x` and `--token x`.
pub fn redact(arguments: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut value_follows = false;
    let redact_one = |argument: String| {
        if std::mem::take(&mut value_follows) {
            return REDACTED.into();
        }
        match argument.split_once('=') {
            Some((name, _)) if is_secret(name) => format!("{name}={REDACTED}"),
            None if argument.starts_with("--") && is_secret(&argument) => {
                value_follows = true;
                argument
            }
            _ => argument,
        }
    };
    arguments.into_iter().map(redact_one).collect()
}

fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase().replace('-', "_");
    SECRET_NAMES.iter().any(|secret| name.ends_with(secret))
}
