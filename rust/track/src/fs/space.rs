//! Free space, asked for before each large write.

use crate::{Result, TrackError};
use std::path::Path;

const BYTES_PER_GIB: f64 = (1u64 << 30) as f64;

/// Bytes that this user may still write on the disk of `path`; of its nearest existing ancestor when `path` does not exist yet.
///
/// # Errors
/// The file system cannot be asked.
pub fn free_bytes(path: &Path) -> Result<u64> {
    let existing = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("."));
    let stats = rustix::fs::statvfs(existing)
        .map_err(|errno| TrackError::io("ask for the free space of", existing)(errno.into()))?;
    Ok(stats.f_bavail.saturating_mul(stats.f_frsize))
}

/// Refuses a write of `bytes_needed` to `path` that would leave less than `min_free_gb` GiB on its disk.
///
/// # Errors
/// [`TrackError::NoSpace`] with the sizes.
pub fn ensure_free(path: &Path, bytes_needed: u64, min_free_gb: f64) -> Result<()> {
    check_free(path, free_bytes(path)?, bytes_needed, min_free_gb)
}

/// The decision of [`ensure_free`] for a known number of free bytes.
///
/// # Errors
/// [`TrackError::NoSpace`] when `bytes_free - bytes_needed` is below the floor.
pub fn check_free(path: &Path, bytes_free: u64, bytes_needed: u64, min_free_gb: f64) -> Result<()> {
    let [free_gib, needed_gib] = [bytes_free, bytes_needed].map(|bytes| bytes as f64 / BYTES_PER_GIB);
    if free_gib - needed_gib >= min_free_gb {
        return Ok(());
    }
    Err(TrackError::NoSpace { path: path.to_path_buf(), free_gib, needed_gib, floor_gib: min_free_gb })
}
