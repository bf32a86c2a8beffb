//! Raw Bridge v2 trees: every folder `raw/traj_group*/traj*` with `images0` is a scene, below the dated folder of its recording.

use super::names::{check_inside, entries};
use crate::error::DataError;
use hlrp_config::foreign;
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Folder of a trajectory's frames.
pub(super) const FRAMES: &str = "images0";
/// How the names of its frames begin.
pub(super) const FRAME_PREFIX: &str = "im_";
/// Names of what may be known of a trajectory.
pub(super) const FACTS: [&str; 12] = [
    "dataset_type",
    "subset",
    "institution",
    "environment",
    "task",
    "dated_folder",
    "robot",
    "gripper",
    "camera_type",
    "policy_desc",
    "traj_id",
    LANGUAGE,
];
/// Name of the fact with the instruction.
pub(super) const LANGUAGE: &str = "language";

/// File with a trajectory's instruction in its first line.
pub(super) const LANGUAGE_FILE: &str = "lang.txt";
/// File with what is known of a recording.
const METADATA: &str = "collection_metadata.json";
const RAW: &str = "raw";
const GROUP: &str = "traj_group";
const TRAJECTORY: &str = "traj";
/// Folders of the dataset's parts, below which a path says where a recording was made.
const SUBSETS: [&str; 5] = ["bridge_data_v1", "bridge_data_v2", "rss", "icra", "flap"];
/// What the folders below the first of them are called after.
const PLACES_OF_V1: [&str; 3] = ["institution", "environment", "task"];
/// What the folders below the others are called after.
const PLACES: [&str; 2] = ["environment", "task"];
/// What the metadata say of a recording.
const RECORDED: [&str; 5] = ["robot", "environment", "gripper", "camera_type", "policy_desc"];

/// Largest file of text.
const MAX_TEXT_BYTES: u64 = 1 << 20;
/// Folders that are above one another at most.
const MAX_DEPTH: usize = 16;
/// Folders that are looked at to see whether there is a trajectory.
const MAX_LOOKED_AT: usize = 1000;

/// One trajectory.
#[derive(Debug)]
pub(super) struct Trajectory {
    /// Its folder, below that of the dataset.
    pub(super) folder: PathBuf,
    recording: Arc<BTreeMap<&'static str, Value>>,
}

impl Trajectory {
    /// What is known of it by this name, but for its language.
    pub(super) fn fact(&self, name: &str) -> Value {
        match name {
            "dataset_type" => "bridge".into(),
            "traj_id" => {
                let parts: Vec<_> = self.folder.iter().map(|part| part.to_string_lossy()).collect();
                parts[parts.len().saturating_sub(2)..].join("/").into()
            }
            _ => self.recording.get(name).cloned().unwrap_or_default(),
        }
    }
}

/// Whether a folder has a trajectory somewhere below it, as far as a quick look shows.
pub(super) fn is_tree(root: &Path) -> bool {
    let mut folders = vec![(root.to_owned(), 0)];
    for _ in 0..MAX_LOOKED_AT {
        let Some((folder, depth)) = folders.pop() else { return false };
        let Ok(entries) = entries(&folder) else { continue };
        for entry in entries.iter().rev().map(fs::DirEntry::path).filter(|entry| entry.is_dir()) {
            if folder.ends_with(RAW) && begins(&entry, GROUP) {
                return true;
            }
            if depth < MAX_DEPTH {
                folders.push((entry, depth + 1));
            }
        }
    }
    false
}

/// All trajectories below `root`, a canonical path, in the order of their paths.
///
/// # Errors
/// A folder cannot be read, the metadata of a recording are damaged, or a link leads out of the dataset.
pub(super) fn find(root: &Path) -> Result<Vec<Trajectory>, DataError> {
    let mut found = Vec::new();
    walk(root, root, 0, &mut found)?;
    Ok(found)
}

fn walk(root: &Path, folder: &Path, depth: usize, found: &mut Vec<Trajectory>) -> Result<(), DataError> {
    let (groups, others): (Vec<_>, Vec<_>) =
        folders(root, folder)?.into_iter().partition(|inner| folder.ends_with(RAW) && begins(inner, GROUP));
    if !groups.is_empty() {
        let recording = Arc::new(recording(root, folder)?);
        for group in groups {
            let inner = folders(root, &group)?.into_iter().filter(|inner| begins(inner, TRAJECTORY));
            found.extend(inner.map(|inner| Trajectory {
                folder: inner.strip_prefix(root).unwrap_or(&inner).to_owned(),
                recording: Arc::clone(&recording),
            }));
        }
    }
    if depth < MAX_DEPTH {
        others.iter().try_for_each(|inner| walk(root, inner, depth + 1, found))?;
    }
    Ok(())
}

/// The folders in a folder. Links to a folder of the dataset are left out: it is read where it is.
fn folders(root: &Path, folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut folders = Vec::new();
    for entry in entries(folder)? {
        let (path, kind) = (entry.path(), entry.file_type().map_err(DataError::io(entry.path()))?);
        if kind.is_symlink() && path.is_dir() {
            check_inside(root, &path)?;
        } else if kind.is_dir() {
            folders.push(path);
        }
    }
    Ok(folders)
}

fn begins(path: &Path, with: &str) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(with.as_bytes()))
}

/// What is known of a recording with the folder `raw`: by its metadata, else by its path.
fn recording(root: &Path, raw: &Path) -> Result<BTreeMap<&'static str, Value>, DataError> {
    let mut facts = BTreeMap::from([("robot", Value::from("widowx"))]);
    let Some(dated) = raw.parent() else { return Ok(facts) };
    let parts: Vec<_> = dated.iter().map(|part| part.to_string_lossy()).collect();
    if let Some(at) = parts.iter().rposition(|part| SUBSETS.contains(&&**part)) {
        let places: &[_] = if parts[at] == SUBSETS[0] { &PLACES_OF_V1 } else { &PLACES };
        // The dated folder itself is no place.
        let above = &parts[at + 1..parts.len().max(at + 2) - 1];
        facts.insert("subset", (&*parts[at]).into());
        facts.extend(places.iter().copied().zip(above.iter().map(|part| (&**part).into())));
    }
    facts.insert("dated_folder", parts.last().map(|part| &**part).into());
    let path = dated.join(METADATA);
    if dated.starts_with(root) && path.exists() {
        let fail = |what: String| {
            DataError::file(&path, what, "correct the file, or move it away: then only its path says where it is from")
        };
        foreign::inspect(&path, MAX_TEXT_BYTES).map_err(|error| fail(error.to_string()))?;
        let text = fs::read(&path).map_err(DataError::io(&path))?;
        let metadata: Map<String, Value> =
            serde_json::from_slice(&text).map_err(|error| fail(format!("is not a JSON object: {error}")))?;
        let recorded = RECORDED.iter().filter_map(|name| Some((*name, metadata.get(*name)?.clone())));
        facts.extend(recorded.filter(|(_, value)| !value.is_null()));
    }
    Ok(facts)
}

/// The instruction of a trajectory, the first line of its file; none where there is no such file, or no text in it.
///
/// # Errors
/// The file is not one of text.
pub(super) fn language(trajectory: &Path) -> Result<Option<String>, DataError> {
    let path = trajectory.join(LANGUAGE_FILE);
    if !path.exists() {
        return Ok(None);
    }
    let hint = "correct the file: its first line is the instruction";
    foreign::inspect(&path, MAX_TEXT_BYTES).map_err(|error| DataError::file(&path, error.to_string(), hint))?;
    let text = fs::read(&path).map_err(DataError::io(&path))?;
    let text = str::from_utf8(&text).map_err(|_| DataError::file(&path, "is not UTF-8", hint))?;
    Ok(text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()))
}
