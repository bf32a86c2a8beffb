//! Which files a repository has at a revision.

use super::{
    client::{Hub, shown},
    error::HubError,
};
use hlrp_schema::hub::{Pinned, RepoKind, is_commit};
use reqwest::Url;
use serde::{Deserialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    path::{Component, Path},
};

/// Pages of a list that are read; each has a thousand files.
const MAX_PAGES: usize = 10_000;

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RemoteFile {
    /// Bytes.
    pub(super) size: u64,
    /// Its digest, which is its name in the cache: SHA-256 of a large file, git's SHA-1 of a small one.
    pub(super) digest: String,
}

/// The files of a repository at a commit, by path.
pub(super) struct Listing {
    pub(super) pinned: Pinned,
    pub(super) files: BTreeMap<String, RemoteFile>,
}

#[derive(Deserialize)]
struct Revision {
    sha: String,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    oid: String,
    size: u64,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

/// The commit of a revision.
fn commit_of(hub: &Hub, kind: RepoKind, repo_id: &str, revision: &str) -> Result<String, HubError> {
    let url = hub.api_url(kind, repo_id, ["revision", revision])?;
    let Revision { sha } = read(&url, &hub.text(&url)?.0)?;
    if is_commit(&sha) { Ok(sha) } else { Err(unexpected(&url, &format!("{sha:?} is not a commit"))) }
}

impl Listing {
    /// Asks for the commit of a revision, and for its files.
    ///
    /// # Errors
    /// The Hub refuses it, cannot be reached, or lists something that cannot be a file.
    pub(super) fn of(hub: &Hub, kind: RepoKind, repo_id: &str, revision: &str) -> Result<Self, HubError> {
        let commit = commit_of(hub, kind, repo_id, revision)?;
        let pinned = Pinned { repo_id: repo_id.to_owned(), commit };
        let mut url = hub.api_url(kind, repo_id, ["tree", &pinned.commit])?;
        url.query_pairs_mut().append_pair("recursive", "true").append_pair("expand", "false");
        let (mut files, mut next) = (BTreeMap::new(), Some(url.clone()));
        for _ in 0..MAX_PAGES {
            let Some(page) = next else { return Ok(Self { pinned, files }) };
            let (text, following) = hub.text(&page)?;
            for entry in read::<Vec<Entry>>(&page, &text)? {
                if entry.kind != "file" {
                    continue;
                }
                if !is_below(&entry.path) {
                    return Err(unexpected(&page, &format!("{:?} is not a path below the repository", entry.path)));
                }
                let (digest, size) = entry.lfs.map_or((entry.oid, entry.size), |lfs| (lfs.oid, lfs.size));
                if !is_digest(&digest) {
                    return Err(unexpected(&page, &format!("{} has the digest {digest:?}", entry.path)));
                }
                files.insert(entry.path, RemoteFile { size, digest });
            }
            next = following;
        }
        Err(unexpected(&url, "the list of files does not end"))
    }
}

/// Whether a digest has one of the forms of [`RemoteFile::digest`].
pub(super) fn is_digest(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.chars().all(|char| char.is_ascii_hexdigit() && !char.is_ascii_uppercase())
}

/// Whether a path stays below the folder that it is relative to.
fn is_below(path: &str) -> bool {
    let parts = Path::new(path).components();
    !path.is_empty() && !path.contains('\\') && parts.clone().all(|part| matches!(part, Component::Normal(_)))
}

fn read<T: DeserializeOwned>(url: &Url, text: &str) -> Result<T, HubError> {
    serde_json::from_str(text).map_err(|error| unexpected(url, &error.to_string()))
}

fn unexpected(url: &Url, what: &str) -> HubError {
    HubError::Refused {
        url: shown(url),
        reason: format!("an answer that is not the Hub's: {what}"),
        hint: "check HF_ENDPOINT".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{is_below, is_digest};

    #[test]
    fn paths_and_digests_of_a_server_lead_nowhere_else() {
        assert!(is_below("meta/info.json") && is_below(".gitattributes"));
        for path in ["", "/etc/passwd", "../x", "a/../../x", "a\\..\\x", "."] {
            assert!(!is_below(path), "{path}");
        }
        assert!(is_digest(&"0a".repeat(20)) && is_digest(&"f".repeat(64)));
        for digest in ["", "abc", "../../x", &"F".repeat(40), &"g".repeat(64)] {
            assert!(!is_digest(digest), "{digest}");
        }
    }
}
