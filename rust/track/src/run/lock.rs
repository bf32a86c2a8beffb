//! One process for each run directory.

use crate::{Result, TrackError, host::hostname};
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::Write,
    path::Path,
    thread,
    time::Duration,
};

/// Name of the lock file; it stays, empty of meaning, when no process holds it.
pub(super) const FILE_NAME: &str = ".lock";

/// How often, and how long after each other, a process asks for a lock: [`is_in_use`] holds it for a moment.
const ATTEMPTS: usize = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// Whether a process has the run in `run_dir`. False where that cannot be known: a folder that this user may not read, a file system
/// without locks.
pub fn is_in_use(run_dir: &Path) -> bool {
    let Ok(file) = File::open(run_dir.join(FILE_NAME)) else { return false };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// An advisory lock on a directory. The system releases it when the process ends, however it ends.
#[derive(Debug)]
pub struct RunLock {
    file: File,
}

impl Drop for RunLock {
    /// Releases the lock by name: closing the file would leave it with a child process that is just being started, which holds a copy of the
    /// handle until its own program begins.
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            tracing::debug!("the lock of a run directory is released by closing it ({error})");
        }
    }
}

impl RunLock {
    /// Takes the lock of `run_dir`, which exists.
    ///
    /// A file system without locks is reported by a warning: the run goes on unprotected.
    ///
    /// # Errors
    /// Another process has it, or the system refuses.
    pub fn acquire(run_dir: &Path) -> Result<Self> {
        let path = run_dir.join(FILE_NAME);
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&path)
            .map_err(TrackError::io("open", &path))?;
        let mut locked = file.try_lock();
        for _ in 1..ATTEMPTS {
            if !matches!(locked, Err(TryLockError::WouldBlock)) {
                break;
            }
            thread::sleep(PAUSE);
            locked = file.try_lock();
        }
        match locked {
            Ok(()) => {
                let owner = format!("process {} on {}\n", std::process::id(), hostname());
                file.set_len(0)
                    .and_then(|()| file.write_all(owner.as_bytes()))
                    .map_err(TrackError::io("write", &path))?;
            }
            Err(TryLockError::WouldBlock) => {
                let owner = fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
                let owner = if owner.is_empty() { "another process".into() } else { owner };
                return Err(TrackError::RunLocked { path: run_dir.to_path_buf(), owner });
            }
            Err(TryLockError::Error(error)) => {
                tracing::warn!("{} cannot be locked ({error}); do not start a second process on it", run_dir.display());
            }
        }
        Ok(Self { file })
    }
}
