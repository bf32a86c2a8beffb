//! A file, written under another name and renamed.

use super::{parent_of, sync_dir};
use crate::{Result, TrackError};
use serde::Serialize;
use std::{
    fs::{File, Permissions},
    io::{self, BufWriter, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// Replaces `path` by `bytes`: a reader, and whoever looks after a crash, sees the old file or the new one, never a part.
///
/// # Errors
/// The folder does not exist, is not writable, or the disk is full; `path` is then unchanged.
pub fn write_atomic(path: &Path, bytes: impl AsRef<[u8]>) -> Result<()> {
    write_atomic_with(path, |file| file.write_all(bytes.as_ref()))
}

/// Replaces `path` by a record as indented JSON, as [`write_atomic`] does.
///
/// # Errors
/// As [`write_atomic`]; a record that JSON cannot hold.
pub fn write_json(path: &Path, record: &(impl Serialize + ?Sized)) -> Result<()> {
    let text = serde_json::to_string_pretty(record).map_err(|error| TrackError::io("write", path)(error.into()))?;
    write_atomic(path, text + "\n")
}

/// Like [`write_atomic`], for content that is produced piece by piece.
///
/// # Errors
/// As [`write_atomic`], and whatever `write` returns.
pub fn write_atomic_with(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
    let error = || TrackError::io("write", path);
    let dir = parent_of(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = tempfile::Builder::new()
        .prefix(&format!(".{name}."))
        .suffix(".partial")
        .permissions(Permissions::from_mode(0o666)) // the user's umask decides, as for any new file
        .tempfile_in(dir)
        .map_err(error())?;
    let (file, partial) = partial.into_parts();
    let mut file = BufWriter::new(file);
    write(&mut file).map_err(error())?;
    let file = file.into_inner().map_err(|failed| error()(failed.into_error()))?;
    file.sync_all().map_err(error())?;
    partial.persist(path).map_err(|failed| error()(failed.error))?;
    sync_dir(dir)
}
