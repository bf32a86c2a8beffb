//! Where a run's code came from.

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
