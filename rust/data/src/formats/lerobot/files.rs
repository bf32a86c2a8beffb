//! Files of a folder that someone else made: they are regular files, and below the folder once links are followed. A link may also lead to the
//! same place in another copy of the dataset, as the videos of a labelled dataset do on another disk.

use crate::error::DataError;
use hlrp_config::foreign;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Refuses a device, a pipe or a folder in the place of a file, and a link that leads out of the dataset. A missing file is left to whoever opens
/// it.
///
/// # Errors
/// Names the file.
pub(super) fn inspect(root: &Path, path: &Path) -> Result<(), DataError> {
    match inspect_size(root, path, u64::MAX) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(refused(path, &error)),
        _ => Ok(()),
    }
}

/// The text of a file of metadata.
///
/// # Errors
/// As [`inspect`], a file that is too large for one of metadata, and one that cannot be read or is not text.
pub(super) fn read_text(root: &Path, path: &Path) -> Result<String, DataError> {
    let read = inspect_size(root, path, foreign::MAX_TEXT_BYTES).and_then(|_| fs::read_to_string(path));
    read.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => refused(path, &error),
        _ => DataError::io(path)(error),
    })
}

fn inspect_size(root: &Path, path: &Path, max_bytes: u64) -> io::Result<u64> {
    match same_place(root, path) {
        Some(target) => foreign::inspect(&target, max_bytes),
        None => foreign::inspect_below(root, path, max_bytes),
    }
}

/// What a path below `root` leads to, if that has the same place below another folder, or is the file itself.
fn same_place(root: &Path, path: &Path) -> Option<PathBuf> {
    let relative = path.strip_prefix(root).ok().filter(|relative| relative.components().count() > 1)?;
    fs::canonicalize(path).ok().filter(|target| target.ends_with(relative))
}

fn refused(path: &Path, error: &io::Error) -> DataError {
    DataError::file(path, error.to_string(), "fetch the file again; links must stay within the dataset")
}
