//! Repositories of the Hugging Face Hub: their names, and where the Hub's own clients keep what they fetched.
//!
//! A repository has one folder in the cache, `datasets--owner--name` or `models--owner--name`: `blobs` has the contents of files, named by their
//! digests; `snapshots/<commit>` the files as links to blobs; `refs/<revision>` the commit of a branch or tag when it was last fetched.

use hlrp_config::foreign::{is_plain_name, read_text};
use std::{
    fmt,
    path::{Path, PathBuf},
};

/// The revision of a source that names none.
pub const MAIN: &str = "main";

/// Hexadecimal digits of a commit.
const COMMIT_LEN: usize = 40;

/// What a repository has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum RepoKind {
    /// A model.
    Model,
    /// A dataset.
    Dataset,
}

impl RepoKind {
    /// The Hub's word for several of them.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
        }
    }
}

/// Whether a text can be the name of a repository: `owner/name`.
#[must_use]
pub fn is_repo_id(name: &str) -> bool {
    let good = |part: &str| {
        part.starts_with(|char: char| char.is_ascii_alphanumeric())
            && part.chars().all(|char| char.is_ascii_alphanumeric() || "-_.".contains(char))
            && !part.contains("--")
            && !part.contains("..")
    };
    name.split_once('/').is_some_and(|(owner, name)| good(owner) && good(name))
}

/// Whether a text can be a revision: a branch, a tag, a reference such as `refs/pr/1`, or a commit.
#[must_use]
pub fn is_revision(name: &str) -> bool {
    let good = |part: &str| {
        part.starts_with(|char: char| char.is_ascii_alphanumeric() || char == '_')
            && part.chars().all(|char| char.is_ascii_alphanumeric() || "-_.+".contains(char))
            && !part.contains("..")
    };
    name.split('/').all(good)
}

/// Whether a revision is a commit, which never changes.
#[must_use]
pub fn is_commit(revision: &str) -> bool {
    revision.len() == COMMIT_LEN && revision.chars().all(|char| char.is_ascii_hexdigit() && !char.is_ascii_uppercase())
}

/// Whether a path that does not exist can be a name on the Hub: `organisation/name`, and no folder of the first part is here.
pub fn is_hub_name(path: &Path) -> bool {
    let name = path.to_str().filter(|name| is_repo_id(name));
    name.and_then(|name| name.split_once('/')).is_some_and(|(organisation, _)| !Path::new(organisation).exists())
}

/// The folder of a repository in the cache `hub_cache`.
#[must_use]
pub fn cache_entry(hub_cache: &Path, kind: RepoKind, repo_id: &str) -> PathBuf {
    hub_cache.join(format!("{}--{}", kind.plural(), repo_id.replace('/', "--")))
}

/// The folder of a snapshot: of a commit, or of the one that a branch or tag had when it was last fetched. None where that is not in the cache.
#[must_use]
pub fn cached_snapshot(entry: &Path, revision: &str) -> Option<PathBuf> {
    let of_commit = |commit: &str| {
        let folder = entry.join("snapshots").join(commit);
        folder.is_dir().then_some(folder)
    };
    if is_commit(revision) {
        return of_commit(revision);
    }
    let commit = read_text(&entry.join("refs").join(revision)).ok()?;
    of_commit(Some(commit.trim()).filter(|commit| is_plain_name(commit))?)
}

/// What to do about a model that is not in the cache `hub_cache`.
#[must_use]
pub fn model_download_hint(model: &str, hub_cache: &Path) -> String {
    let command = format!("hlrp data download {model} --repo-type model --cache-dir {}", hub_cache.display());
    format!("run `{command}` on a machine with network access, or give the path of a folder")
}

/// A repository at one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// Its name.
    pub repo_id: String,
    /// The commit.
    pub commit: String,
}

impl Pinned {
    /// The dataset whose snapshot the folder `root` of the cache is; none for any other folder.
    #[must_use]
    pub fn of_dataset(root: &Path) -> Option<Self> {
        Self::of(RepoKind::Dataset, root)
    }

    /// The repository whose snapshot the folder `root` of the cache is; none for any other folder.
    #[must_use]
    pub fn of(kind: RepoKind, root: &Path) -> Option<Self> {
        let root = root.canonicalize().ok()?;
        let commit = root.file_name()?.to_str().filter(|name| is_commit(name))?.to_owned();
        let snapshots = root.parent().filter(|parent| parent.ends_with("snapshots"))?;
        let prefix = format!("{}--", kind.plural());
        let repo_id = snapshots.parent()?.file_name()?.to_str()?.strip_prefix(&prefix)?.replacen("--", "/", 1);
        is_repo_id(&repo_id).then_some(Self { repo_id, commit })
    }
}

impl fmt::Display for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the word before it, a commit looks like a key.
        write!(f, "{} at commit {}", self.repo_id, self.commit)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;
    use std::fs;

    #[test]
    fn paths_are_no_names_on_the_hub() {
        for name in ["HuggingFaceTB/SmolVLM2-500M-Video-Instruct", "lerobot/some_policy", "0a/b.c"] {
            assert!(is_hub_name(Path::new(name)), "{name}");
        }
        for path in ["/models/x", "/x", "~/x", "./x", "../x", "models/smol/vlm", "x", "x/", "", "src/x", "a b/c"] {
            assert!(!is_hub_name(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn a_revision_leads_nowhere_else() {
        for name in ["main", "v2.1", "refs/pr/3", "feature/x-1", &"0a".repeat(20)] {
            assert!(is_revision(name), "{name}");
        }
        for name in ["", "/main", "main/", "../x", "a//b", "a b", "a?b", "-x", "..", "a/../b"] {
            assert!(!is_revision(name), "{name}");
        }
    }

    #[test]
    fn a_snapshot_is_found_by_branch_and_by_commit() {
        let cache = tempfile::tempdir().unwrap();
        let entry = cache_entry(cache.path(), RepoKind::Dataset, "owner/robot_data");
        assert!(entry.ends_with("datasets--owner--robot_data"));
        let commit = "0123456789".repeat(4);
        let snapshot = entry.join("snapshots").join(&commit);
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir_all(entry.join("refs/refs/pr")).unwrap();
        fs::write(entry.join("refs/main"), &commit).unwrap();
        fs::write(entry.join("refs/refs/pr/1"), "../../elsewhere").unwrap();
        assert_eq!(cached_snapshot(&entry, MAIN), Some(snapshot.clone()));
        assert_eq!(cached_snapshot(&entry, &commit), Some(snapshot.clone()));
        for revision in ["v1", "refs/pr/1", &"f".repeat(40)] {
            assert_eq!(cached_snapshot(&entry, revision), None, "{revision}");
        }
        let pinned = Pinned::of_dataset(&snapshot).unwrap();
        assert_eq!(pinned.to_string(), format!("owner/robot_data at commit {commit}"));
        assert_eq!(Pinned::of_dataset(&entry), None);
    }
}
