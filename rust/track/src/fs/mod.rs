//! Files and folders that appear whole or not at all, and the free space that they need.

mod atomic;
mod digest;
mod publish;
mod space;
mod superseded;

pub use atomic::{write_atomic, write_atomic_with, write_json};
pub use digest::{FileDigest, sha256_of};
pub use publish::{OnExisting, publish_dir};
pub use space::{DiskRules, Free, Limit, ensure_free};
pub use superseded::{FOLDER as SUPERSEDED, Superseded};

use crate::{Result, TrackError};
use std::{fs::File, path::Path};

/// Flushes a folder's entries to the disk, so that a rename in it survives a power cut.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|handle| handle.sync_all()).map_err(TrackError::io("flush", dir))
}

/// The folder that holds `path`; `.` for a bare name.
pub(crate) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
