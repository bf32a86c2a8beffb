//! The claim of a run: of all jobs that could train it, one does.
//!
//! `submit/claims` has a folder for each claim, numbered from 1; the highest is the one that holds. A folder is filled under another name and
//! renamed: a rename onto a folder that is there fails on every file system, so of any number of jobs one succeeds, and whoever reads a claim reads
//! a whole one. A claim whose owner has ended is followed by the next number, never replaced: a job that decides on old knowledge meets a
//! number that is taken. Nothing is deleted.

use crate::error::{Result, SubmitError};
use hlrp_config::foreign::read_text;
use hlrp_track::fs::{write_atomic, write_json};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::{
    fmt, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

const OWNER: &str = "owner.json";
const RELEASED: &str = "released.json";

/// A job that claims a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// Name of its Slurm cluster, where Slurm tells one.
    pub cluster: Option<String>,
    /// Its id; `<array>_<member>` for a member of an array.
    pub job: String,
    /// How often it has been queued again.
    pub restart: u32,
    /// Host of the batch script.
    pub host: String,
    /// When it claimed the run, RFC 3339.
    pub at: String,
}

impl Owner {
    /// Whether both are the same job, started again or not.
    pub fn is_same_job(&self, other: &Self) -> bool {
        self.job == other.job && self.cluster == other.cluster
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job {}", self.job)?;
        self.cluster.iter().try_for_each(|cluster| write!(f, " of {cluster}"))?;
        write!(f, " on {}", self.host)
    }
}

/// Who has the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// The job that asked.
    Mine {
        /// Number of the claim.
        number: u64,
    },
    /// Another.
    Others(Owner),
}

/// Claims the run whose claims are in `claims` for `me`. The same job, started again, claims it again. A claim of another job falls to `me` if
/// its owner has released it or if `has_ended` says so; that function asks Slurm, and says no where Slurm does not answer.
///
/// # Errors
/// A damaged claim, or the system's refusal.
pub fn claim(claims: &Path, me: &Owner, mut has_ended: impl FnMut(&Owner) -> bool) -> Result<Claimed> {
    fs::create_dir_all(claims).map_err(SubmitError::io("create", claims))?;
    let mine = prepare(claims, me)?;
    loop {
        let number = match current(claims)? {
            None => 1,
            Some((number, owner)) => {
                let is_free = owner.is_same_job(me) || is_released(claims, number) || has_ended(&owner);
                if !is_free {
                    set_aside(&mine, claims, me)?;
                    return Ok(Claimed::Others(owner));
                }
                number + 1
            }
        };
        let place = claims.join(number.to_string());
        match rustix::fs::rename(&mine, &place) {
            Ok(()) => return Ok(Claimed::Mine { number }),
            // Another job was faster: its claim decides.
            Err(Errno::EXIST | Errno::NOTEMPTY) => {}
            Err(errno) => return Err(SubmitError::io("rename into", &place)(errno.into())),
        }
    }
}

/// The claim that holds, with its number.
///
/// # Errors
/// As [`claim`].
pub fn current(claims: &Path) -> Result<Option<(u64, Owner)>> {
    let entries = match fs::read_dir(claims) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        entries => entries.map_err(SubmitError::io("list", claims))?,
    };
    let mut newest = None;
    for entry in entries {
        let name = entry.map_err(SubmitError::io("list", claims))?.file_name();
        newest = newest.max(name.to_str().and_then(|name| name.parse::<u64>().ok()));
    }
    let Some(number) = newest else { return Ok(None) };
    let path = claims.join(number.to_string()).join(OWNER);
    let text = read_text(&path).map_err(SubmitError::io("read", &path))?;
    let owner = serde_json::from_str(&text)
        .map_err(|error| SubmitError::Malformed { path: path.clone(), reason: error.to_string() })?;
    Ok(Some((number, owner)))
}

/// Gives a claim up: the next job may take the run, though this one has not ended yet.
///
/// # Errors
/// The system's refusal.
pub fn release(claims: &Path, number: u64) -> Result<()> {
    Ok(write_atomic(&claims.join(number.to_string()).join(RELEASED), "{}\n")?)
}

fn is_released(claims: &Path, number: u64) -> bool {
    claims.join(number.to_string()).join(RELEASED).is_file()
}

/// A folder with the claim of `me`, under a name that no other process has.
fn prepare(claims: &Path, me: &Owner) -> Result<PathBuf> {
    let cluster = me.cluster.as_deref().unwrap_or_default();
    let folder = claims.join(format!(".{cluster}.{}.{}.{}.{}", me.job, me.restart, me.host, std::process::id()));
    fs::create_dir_all(&folder).map_err(SubmitError::io("create", &folder))?;
    write_json(&folder.join(OWNER), me)?;
    Ok(folder)
}

/// Keeps the claim of a job that came too late, as a record.
fn set_aside(mine: &Path, claims: &Path, me: &Owner) -> Result<()> {
    let name = format!("lost.{}.{}.{}", me.job, me.restart, std::process::id());
    rustix::fs::rename(mine, claims.join(name)).map_err(|errno| SubmitError::io("rename", mine)(errno.into()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::{sync::Barrier, thread};

    fn owner(job: &str, restart: u32) -> Owner {
        Owner { cluster: None, job: job.into(), restart, host: "n1".into(), at: "now".into() }
    }

    fn number(claimed: &Claimed) -> Option<u64> {
        if let Claimed::Mine { number } = claimed { Some(*number) } else { None }
    }

    #[test]
    fn of_many_jobs_at_the_same_moment_one_has_the_run() {
        for _ in 0..50 {
            let folder = tempfile::tempdir().unwrap();
            let barrier = Barrier::new(8);
            let claim_it = |job: usize| {
                barrier.wait();
                claim(folder.path(), &owner(&job.to_string(), 0), |_| false).unwrap()
            };
            let results: Vec<_> = thread::scope(|scope| {
                let threads: Vec<_> = (0..8).map(|job| scope.spawn(move || claim_it(job))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let winners: Vec<_> = results.iter().filter_map(number).collect();
            assert_eq!(winners, [1], "{results:?}");
        }
    }

    #[test]
    fn of_many_jobs_that_take_over_one_has_the_run() {
        for _ in 0..50 {
            let folder = tempfile::tempdir().unwrap();
            claim(folder.path(), &owner("gone", 0), |_| false).unwrap();
            let barrier = Barrier::new(8);
            // Each has found the first owner ended before any of them claims; the new owner has not.
            let take = |job: usize| {
                let has_ended = |owner: &Owner| {
                    let is_gone = owner.job == "gone";
                    if is_gone {
                        barrier.wait();
                    }
                    is_gone
                };
                claim(folder.path(), &owner(&job.to_string(), 0), has_ended).unwrap()
            };
            let results: Vec<_> = thread::scope(|scope| {
                let threads: Vec<_> = (0..8).map(|job| scope.spawn(move || take(job))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(results.iter().filter_map(number).collect::<Vec<_>>(), [2], "{results:?}");
        }
    }

    #[test]
    fn the_same_job_keeps_its_claim_when_it_is_queued_again() {
        let folder = tempfile::tempdir().unwrap();
        let take = |job: &str, restart| claim(folder.path(), &owner(job, restart), |_| false).unwrap();
        assert_eq!(number(&take("7", 0)), Some(1));
        assert_eq!(take("8", 0), Claimed::Others(owner("7", 0)));
        assert_eq!(number(&take("7", 1)), Some(2));
        assert_eq!(current(folder.path()).unwrap(), Some((2, owner("7", 1))));
    }

    #[test]
    fn a_claim_that_was_released_is_free() {
        let folder = tempfile::tempdir().unwrap();
        claim(folder.path(), &owner("7", 0), |_| false).unwrap();
        release(folder.path(), 1).unwrap();
        assert_eq!(number(&claim(folder.path(), &owner("8", 0), |_| false).unwrap()), Some(2));
    }

    #[test]
    fn a_silent_slurm_means_no_takeover() {
        let folder = tempfile::tempdir().unwrap();
        claim(folder.path(), &owner("7", 0), |_| false).unwrap();
        let mut asked = Vec::new();
        let result = claim(folder.path(), &owner("8", 0), |owner| {
            asked.push(owner.job.clone());
            false
        });
        assert_eq!(result.unwrap(), Claimed::Others(owner("7", 0)));
        assert_eq!(asked, ["7"]);
    }
}
