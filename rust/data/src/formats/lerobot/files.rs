//! Files of a folder that someone else made: they are regular files, and below the folder once links are followed.

use crate::error::DataError;
use hlrp_config::foreign;
use std::path::Path;

/// Refuses a device, a pipe or a folder in the place of a file, and a link that leads out of the dataset. A file that is missing is left to who opens it.
///
/// # Errors
/// Names the file.
pub(super) fn inspect(root: &Path, path: &Path) -> Result<(), DataError> {
    match foreign::inspect_below(root, path, u64::MAX) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(refused(path, &error)),
        _ => Ok(()),
    }
}

/// The text of a file of metadata.
///
/// # Errors
/// As [`inspect`], a file that is too large for one of metadata, and one that cannot be read or is not text.
pub(super) fn read_text(root: &Path, path: &Path) -> Result<String, DataError> {
    let read = foreign::inspect_below(root, path, foreign::MAX_TEXT_BYTES).and_then(|_| std::fs::read_to_string(path));
    read.map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidData => refused(path, &error),
        _ => DataError::io(path)(error),
    })
}

fn refused(path: &Path, error: &std::io::Error) -> DataError {
    DataError::file(path, error.to_string(), "fetch the file again; what a link leads to has to be in the dataset")
}
