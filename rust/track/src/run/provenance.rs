//! Where a run's code came from.

use crate::{Result, fs::write_atomic};
use hlrp_config::secret::redact;
use serde::{Deserialize, Serialize};
use std::{
    io::Read,
    path::Path,
    process::{Command, Stdio},
};

/// Bytes of a patch that a run keeps.
const MAX_PATCH_BYTES: u64 = 1 << 19;
/// Untracked files that a patch names.
const MAX_UNTRACKED: usize = 50;

/// Commit of a working tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitState {
    /// Full commit id.
    pub commit: String,
    /// Whether tracked files differ from the commit.
    pub dirty: bool,
    /// File in the run directory with these differences; none where there are none, and in runs of format 2.
    pub patch: Option<String>,
}

impl GitState {
    /// The state of the working tree around `folder`; nothing outside a repository or without git.
    pub fn of(folder: &Path) -> Option<Self> {
        let commit = git(folder, &["rev-parse", "HEAD"])?;
        let dirty = !git(folder, &["status", "--porcelain", "--untracked-files=no"])?.is_empty();
        Some(Self { commit, dirty, patch: None })
    }

    /// As [`GitState::of`]; how tracked files differ from the commit goes to the file `name` in `run_dir`, without secrets.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn record(folder: &Path, run_dir: &Path, name: &str) -> Result<Option<Self>> {
        let Some(mut state) = Self::of(folder) else { return Ok(None) };
        if state.dirty {
            write_atomic(&run_dir.join(name), patch(folder, &state.commit))?;
            state.patch = Some(name.to_owned());
        }
        Ok(Some(state))
    }
}

fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// What `git apply` needs to turn the commit into the working tree, after lines that explain it.
fn patch(folder: &Path, commit: &str) -> String {
    let (text, is_cut) = difference(folder).unwrap_or_default();
    let redacted = redact(&text);
    let mut head = format!("Changes of tracked files against {commit}; git apply reads them.\n");
    if redacted != text {
        head += "Secrets are replaced by ***, also where that breaks a line of code.\n";
    }
    if is_cut {
        head += &format!("Only the first {MAX_PATCH_BYTES} bytes are kept: the last change is incomplete.\n");
    }
    let untracked = git(folder, &["ls-files", "--others", "--exclude-standard", "--full-name"]).unwrap_or_default();
    let num_untracked = untracked.lines().count();
    if num_untracked > 0 {
        head += &format!("Untracked files, whose content is not here: {num_untracked}\n");
        head.extend(untracked.lines().take(MAX_UNTRACKED).map(|name| format!("  {}\n", redact(name))));
    }
    format!("{head}\n{redacted}")
}

/// The first bytes of `git diff`, and whether there are more.
fn difference(folder: &Path) -> Option<(String, bool)> {
    const DIFF: [&str; 5] = ["diff", "--no-color", "--no-ext-diff", "--no-textconv", "HEAD"];
    let mut child = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(DIFF)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut bytes = Vec::new();
    let read = child.stdout.take()?.take(MAX_PATCH_BYTES + 1).read_to_end(&mut bytes);
    // git ends when nobody reads its output any more.
    let _ = child.wait();
    read.ok()?;
    let is_cut = bytes.len() as u64 > MAX_PATCH_BYTES;
    bytes.truncate(MAX_PATCH_BYTES as usize);
    Some((String::from_utf8_lossy(&bytes).into_owned(), is_cut))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;
    use std::fs;

    fn repository() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("code.py"), "a = 1\n").unwrap();
        for arguments in [
            &["init", "-q"][..],
            &["add", "."],
            &["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "first", "--no-gpg-sign"],
        ] {
            git(dir.path(), arguments).unwrap();
        }
        dir
    }

    #[test]
    fn a_patch_turns_the_commit_into_the_working_tree() {
        let (code, run) = (repository(), tempfile::tempdir().unwrap());
        let clean = GitState::record(code.path(), run.path(), "git.patch").unwrap().unwrap();
        assert_eq!((clean.dirty, clean.patch), (false, None));
        fs::write(code.path().join("code.py"), "a = 2\n").unwrap();
        fs::write(code.path().join("new.py"), "b = 1\n").unwrap();
        let state = GitState::record(code.path(), run.path(), "git.patch").unwrap().unwrap();
        assert_eq!(state.patch.as_deref(), Some("git.patch"));
        let patch = run.path().join("git.patch");
        let text = fs::read_to_string(&patch).unwrap();
        assert!(
            text.contains("-a = 1\n+a = 2\n") && text.contains("\n  new.py\n") && !text.contains("b = 1"),
            "{text}"
        );
        git(code.path(), &["checkout", "-q", "code.py"]).unwrap();
        git(code.path(), &["apply", patch.to_str().unwrap()]).unwrap();
        assert_eq!(fs::read_to_string(code.path().join("code.py")).unwrap(), "a = 2\n");
    }

    #[test]
    fn a_patch_has_no_secret_and_a_bounded_size() {
        let code = repository();
        let long = "x\n".repeat(MAX_PATCH_BYTES as usize);
        fs::write(code.path().join("code.py"), format!("key = \"hf_AbCdEfGh1jKlMnOp\"\n{long}")).unwrap();
        let text = patch(code.path(), "c0ffee");
        assert!(!text.contains("hf_AbCd") && text.contains("Secrets are replaced by ***"));
        assert!(
            text.contains("Only the first 524288 bytes are kept") && text.len() < (MAX_PATCH_BYTES + 1000) as usize
        );
    }
}
