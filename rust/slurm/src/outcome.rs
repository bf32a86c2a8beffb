//! How the jobs of a run ended, and which of them the user cancelled, in the run's own record: Slurm forgets.

use crate::client::{Exit, State};
use hlrp_config::foreign::read_text;
use hlrp_track::{Result, TrackError, fs::write_json, time::timestamp};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fs, path::Path};

/// Folder of a run directory with everything about its submission.
pub const SUBMIT_DIR: &str = "submit";
/// File in [`SUBMIT_DIR`] that says that the user cancelled the run.
pub const CANCELLED: &str = "cancelled.json";
/// What the comment of every job of ours begins with.
pub const COMMENT_PREFIX: &str = "hlrp:";
/// File of the final states, in [`SUBMIT_DIR`] of a run directory.
pub const FINAL: &str = "final.json";

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalState {
    /// Last state.
    pub state: State,
    /// Exit code and signal of its script, where Slurm says so.
    pub exit: Option<Exit>,
    /// Partition.
    pub partition: String,
    /// Time from its last start to its end: `[days-]hours:minutes:seconds`.
    pub elapsed: String,
}

/// A cancellation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancellation {
    /// The job.
    pub job: String,
    /// When, RFC 3339.
    pub at: String,
    /// By whom: `user@host`.
    pub by: String,
}

/// Keeps the final state of a job in the run's directory.
///
/// # Errors
/// The record is damaged, or the system refuses.
pub fn record_final_state(run_dir: &Path, job: &str, last: &FinalState) -> Result<()> {
    let mut all = final_states(run_dir)?;
    if all.get(job) == Some(last) {
        return Ok(());
    }
    all.insert(job.to_owned(), last.clone());
    write(&run_dir.join(SUBMIT_DIR).join(FINAL), &all)
}

/// The final states that are known, by job.
///
/// # Errors
/// The record is damaged, or the system refuses.
pub fn final_states(run_dir: &Path) -> Result<BTreeMap<String, FinalState>> {
    let path = run_dir.join(SUBMIT_DIR).join(FINAL);
    if !path.exists() {
        return Ok(BTreeMap::new());
    }
    let text = read_text(&path).map_err(|source| TrackError::Io { action: "read", path: path.clone(), source })?;
    serde_json::from_str(&text).map_err(|error| malformed(&path, &error))
}

/// Notes that the user cancels a job of the run, so that none of its jobs starts it again.
///
/// # Errors
/// The system refuses.
pub fn record_cancellation(run_dir: &Path, job: &str, by: &str) -> Result<()> {
    let cancellation = Cancellation { job: job.to_owned(), at: timestamp(), by: by.to_owned() };
    write(&run_dir.join(SUBMIT_DIR).join(CANCELLED), &cancellation)
}

/// Sets the note of a cancellation aside: jobs of the run may start it again. Returns whether there was one.
///
/// # Errors
/// The system refuses.
pub fn set_cancellation_aside(run_dir: &Path) -> Result<bool> {
    let marker = run_dir.join(SUBMIT_DIR).join(CANCELLED);
    if !marker.is_file() {
        return Ok(false);
    }
    let aside = (1..).map(|n| marker.with_file_name(format!("cancelled-{n}.json"))).find(|path| !path.exists());
    let moved = fs::rename(&marker, aside.unwrap_or_else(|| marker.clone()));
    moved.map(|()| true).map_err(|source| TrackError::Io { action: "set aside", path: marker, source })
}

fn write(path: &Path, record: &impl Serialize) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(|source| TrackError::Io { action: "create", path: folder.into(), source })?;
    write_json(path, record)
}

fn malformed(path: &Path, error: &serde_json::Error) -> TrackError {
    TrackError::Malformed { path: path.to_path_buf(), line: Some(error.line()), reason: error.to_string() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_final_states_of_all_jobs_are_kept() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(final_states(run.path()).unwrap(), BTreeMap::new());
        let ended = |state, code| FinalState {
            state,
            exit: Some(Exit { code, signal: 0 }),
            partition: "lrz-cpu".into(),
            elapsed: "00:01:00".into(),
        };
        record_final_state(run.path(), "7", &ended(State::Timeout, 0)).unwrap();
        record_final_state(run.path(), "8", &ended(State::Failed, 75)).unwrap();
        record_final_state(run.path(), "8", &ended(State::Completed, 0)).unwrap();
        let states = final_states(run.path()).unwrap();
        assert_eq!(states["7"], ended(State::Timeout, 0));
        assert_eq!(states["8"], ended(State::Completed, 0));
        assert_eq!(states.len(), 2);
    }
}
