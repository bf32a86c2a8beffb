//! A folder, filled under another name and renamed.

use super::{Superseded, parent_of, sync_dir};
use crate::{Result, TrackError};
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

/// What [`publish_dir`] does when the final folder is already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExisting {
    /// It is an error; the folder stays as it is.
    Refuse,
    /// The folder moves aside first: to `superseded/` where that is the rule of the run, else to `<name>.superseded-<n>` with the smallest free
    /// `n` from 1.
    MoveAside,
    /// The folder is replaced in one step and what it held is put away by the rule of the run: for results of a run that the run itself
    /// supersedes.
    Replace,
}

/// Makes the folder `final_dir` appear with everything that `fill` writes into the folder it is given.
///
/// `fill` works in a hidden sibling, `.<name>.partial`. Afterwards every file in it is flushed to the disk and the folder is renamed.
/// A process killed at any moment therefore leaves either no `final_dir` or a whole one.
/// A `.<name>.partial` left by such a kill is put away first, by the rule of the run: two processes must not publish the same folder at once
/// (the lock of [`crate::RunDir`] sees to that inside a run).
///
/// # Errors
/// Whatever `fill` returns, [`TrackError::Exists`] under [`OnExisting::Refuse`], or the system's refusal. What `fill` wrote before it failed is put away by the rule of the run.
pub fn publish_dir<E: From<TrackError>>(
    final_dir: &Path,
    on_existing: OnExisting,
    superseded: &Superseded,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    if on_existing == OnExisting::Refuse && final_dir.exists() {
        return Err(TrackError::Exists { path: final_dir.to_path_buf() }.into());
    }
    let partial = partial_path(final_dir);
    superseded.put_away(&partial)?;
    fs::create_dir(&partial).map_err(TrackError::io("create", &partial))?;
    let published = fill(&partial).and_then(|()| Ok(sync_tree(&partial)?));
    if published.is_err() {
        superseded.put_away(&partial)?;
        return published;
    }
    Ok(move_into_place(&partial, final_dir, on_existing, superseded)?)
}

/// `.<name>.partial` next to `final_dir`.
fn partial_path(final_dir: &Path) -> PathBuf {
    let name = final_dir.file_name().unwrap_or_default().to_string_lossy();
    parent_of(final_dir).join(format!(".{name}.partial"))
}

fn move_into_place(partial: &Path, final_dir: &Path, on_existing: OnExisting, superseded: &Superseded) -> Result<()> {
    match on_existing {
        OnExisting::Replace if final_dir.exists() => exchange(partial, final_dir, superseded)?,
        OnExisting::MoveAside if final_dir.exists() => {
            match superseded {
                Superseded::KeptIn(_) => drop(superseded.put_away(final_dir)?),
                Superseded::Removed => move_aside(final_dir)?,
            }
            rename_new(partial, final_dir)?;
        }
        _ => rename_new(partial, final_dir)?,
    }
    sync_dir(parent_of(final_dir))
}

/// Flushes every file below `dir`, then the folders themselves.
fn sync_tree(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(TrackError::io("list", dir))? {
        let entry = entry.map_err(TrackError::io("list", dir))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(TrackError::io("inspect", &path))?;
        if kind.is_dir() {
            sync_tree(&path)?;
        } else if kind.is_file() {
            File::open(&path).and_then(|file| file.sync_all()).map_err(TrackError::io("flush", &path))?;
        }
    }
    sync_dir(dir)
}

/// Gives `final_dir` the contents of `partial` and puts its former ones away.
fn exchange(partial: &Path, final_dir: &Path, superseded: &Superseded) -> Result<()> {
    match renameat_with(CWD, partial, CWD, final_dir, RenameFlags::EXCHANGE) {
        Ok(()) => superseded.put_away_as(partial, final_dir).map(drop),
        // Some network file systems lack the flag: the folder is then missing for a moment.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            superseded.put_away(final_dir)?;
            rename_new(partial, final_dir)
        }
        Err(errno) => Err(TrackError::io("replace", final_dir)(errno.into())),
    }
}

fn move_aside(dir: &Path) -> Result<()> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    for number in 1.. {
        let aside = parent_of(dir).join(format!("{name}.superseded-{number}"));
        match rename_new(dir, &aside) {
            Err(TrackError::Exists { .. }) => {}
            moved => return moved,
        }
    }
    unreachable!("there is always another number")
}

/// Renames without ever replacing anything.
pub(super) fn rename_new(from: &Path, to: &Path) -> Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::EXIST | Errno::NOTEMPTY) => Err(TrackError::Exists { path: to.to_path_buf() }),
        // Some network file systems lack the flag.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) if to.exists() => {
            Err(TrackError::Exists { path: to.to_path_buf() })
        }
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            fs::rename(from, to).map_err(TrackError::io("rename into", to))
        }
        Err(errno) => Err(TrackError::io("rename into", to)(errno.into())),
        Ok(()) => Ok(()),
    }
}
