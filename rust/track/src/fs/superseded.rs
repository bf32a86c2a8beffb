//! What becomes of folders that newer ones replace. The only place of this project that removes anything of a run.

use super::{parent_of, publish::rename_new, sync_dir};
use crate::{Result, TrackError};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Folder for what is kept, in a run directory.
pub const FOLDER: &str = "superseded";

/// What becomes of replaced artifacts, pruned checkpoints, and what a killed writer left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Superseded {
    /// It is removed.
    Removed,
    /// It moves to `superseded/` of this folder, under its path relative to the folder.
    KeptIn(PathBuf),
}

impl Superseded {
    /// The rule of a run in `root`: `keep` is `cluster.keep_superseded`.
    pub fn new(keep: bool, root: &Path) -> Self {
        if keep { Self::KeptIn(root.to_path_buf()) } else { Self::Removed }
    }

    /// Takes the folder `path` away, and returns where it is if it is kept. Without such a folder nothing happens.
    ///
    /// # Errors
    /// The system refuses.
    pub fn put_away(&self, path: &Path) -> Result<Option<PathBuf>> {
        self.put_away_as(path, path)
    }

    /// As [`Self::put_away`], under the name of `original`, whose former content it is.
    pub(super) fn put_away_as(&self, path: &Path, original: &Path) -> Result<Option<PathBuf>> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Ok(found) if found.is_dir() => {}
            _ => return Err(TrackError::io("clear", path)(io::ErrorKind::NotADirectory.into())),
        }
        match self {
            Self::Removed => remove(path).map(|()| None),
            Self::KeptIn(root) => keep(root, path, original).map(Some),
        }
    }
}

/// Moves `path` to the first free name below `superseded/`.
fn keep(root: &Path, path: &Path, original: &Path) -> Result<PathBuf> {
    let (root, relative) = match original.strip_prefix(root) {
        Ok(relative) => (root, relative),
        Err(_) => (parent_of(original), Path::new(original.file_name().unwrap_or_default())),
    };
    if relative.starts_with(FOLDER) {
        return Ok(path.to_path_buf()); // it is there already
    }
    let folder = root.join(FOLDER).join(relative.parent().unwrap_or(Path::new("")));
    fs::create_dir_all(&folder).map_err(TrackError::io("create", &folder))?;
    let name = relative.file_name().unwrap_or_default().to_string_lossy();
    let name = name.trim_start_matches('.');
    for number in 1.. {
        let target = folder.join(if number == 1 { name.to_owned() } else { format!("{name}-{number}") });
        match rename_new(path, &target) {
            Err(TrackError::Exists { .. }) => {}
            moved => {
                moved?;
                sync_dir(&folder)?;
                sync_dir(parent_of(path))?;
                return Ok(target);
            }
        }
    }
    unreachable!("there is always another number")
}

/// Removes a folder. A kill in between leaves a hidden folder, not half of one that others read.
fn remove(path: &Path) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let doomed = parent_of(path).join(format!(".{}.removed", name.trim_start_matches('.')));
    remove_now(&doomed)?;
    fs::rename(path, &doomed).map_err(TrackError::io("rename", path))?;
    remove_now(&doomed)
}

/// Removes a folder that nobody else knows: one that this process was filling, or a doomed one.
fn remove_now(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(TrackError::io("clear", path)(error)),
        _ => Ok(()),
    }
}
