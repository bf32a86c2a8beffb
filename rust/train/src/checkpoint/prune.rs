//! Removal of old checkpoints, only where the configuration asks for it.

use super::{
    BEST, LAST, Manifest,
    location::{checkpoint_name, read_pointer, steps},
};
use crate::{Result, TrainError};
use std::{fs, path::Path};

/// Keeps the newest `keep_last` checkpoints of the folder, and those that `last` and `best` name; removes the other whole
/// checkpoints `step-*`. Anything else in the folder stays.
///
/// # Errors
/// The system refuses.
pub(crate) fn prune(checkpoints: &Path, keep_last: usize) -> Result<()> {
    let pointed = [read_pointer(checkpoints, LAST)?, read_pointer(checkpoints, BEST)?];
    for step in steps(checkpoints).into_iter().skip(keep_last) {
        let name = checkpoint_name(step);
        let dir = checkpoints.join(&name);
        if pointed.iter().flatten().any(|kept| *kept == name) || Manifest::read(&dir).is_err() {
            continue;
        }
        // A kill in between leaves a hidden folder, not half a checkpoint.
        let doomed = checkpoints.join(format!(".{name}.removed"));
        fs::rename(&dir, &doomed).map_err(TrainError::io("rename", &dir))?;
        fs::remove_dir_all(&doomed).map_err(TrainError::io("remove", &doomed))?;
        tracing::info!("removed checkpoint {} (training.checkpoint.keep_last = {keep_last})", dir.display());
    }
    Ok(())
}
