//! Workstation, Slurm job or login node.

use crate::{Result, TrackError, env};
use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// What kind of place a process runs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// No Slurm here.
    Workstation,
    /// Inside an allocation.
    SlurmJob {
        /// The job's id.
        id: String,
    },
    /// Jobs can be submitted from here, and this is not one.
    LoginNode {
        /// What gave it away.
        reason: String,
    },
}

impl Place {
    /// The place of this process. `login_node_names` are host name patterns with `*`; without them, a host with `sbatch` and no job
    /// counts as a login node.
    pub fn detect(login_node_names: &[String]) -> Self {
        Self::judge(
            &super::hostname(),
            login_node_names,
            env::get(env::SLURM_JOB_ID),
            find_program("sbatch").as_deref(),
        )
    }

    /// The rule of [`Place::detect`] for known facts.
    pub fn judge(host: &str, login_node_names: &[String], job_id: Option<String>, sbatch: Option<&Path>) -> Self {
        if let Some(id) = job_id {
            return Self::SlurmJob { id };
        }
        if let Some(pattern) = login_node_names.iter().find(|pattern| matches(pattern, host)) {
            return Self::LoginNode { reason: format!("its name matches {pattern:?}") };
        }
        match sbatch {
            Some(path) if login_node_names.is_empty() => {
                Self::LoginNode { reason: format!("{} is here and {} is not set", path.display(), env::SLURM_JOB_ID) }
            }
            _ => Self::Workstation,
        }
    }
}

/// Refuses to train on a login node, unless `allow`ed by the user.
///
/// # Errors
/// [`TrackError::LoginNode`].
pub fn refuse_login_node(program: &str, login_node_names: &[String], allow: bool) -> Result<()> {
    match Place::detect(login_node_names) {
        Place::LoginNode { reason } if !allow => {
            Err(TrackError::LoginNode { program: program.into(), host: super::hostname(), reason })
        }
        _ => Ok(()),
    }
}

/// The first executable file called `name` on `PATH`.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::get(env::PATH)?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Whether `text` is `pattern`, in which each `*` stands for any characters.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|tail| {
            (0..=tail.len()).filter(|&at| tail.is_char_boundary(at)).any(|at| matches(rest, &tail[at..]))
        }),
    }
}
