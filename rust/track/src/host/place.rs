//! Workstation, Slurm job or login node.

use crate::{Result, TrackError, env};
use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// What kind of place a process runs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Training may run here.
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

/// What is known of a machine, from which its kind is derived.
#[derive(Debug, Clone, Default)]
pub struct Signs {
    /// Host name.
    pub host: String,
    /// Id of the Slurm job that this process belongs to.
    pub job_id: Option<String>,
    /// Slurm's program that submits jobs.
    pub sbatch: Option<PathBuf>,
    /// Whether the driver shows a GPU.
    pub has_gpu: bool,
}

impl Signs {
    /// Those of this machine.
    pub fn read() -> Self {
        Self {
            host: super::hostname(),
            job_id: env::get(env::SLURM_JOB_ID),
            sbatch: find_program("sbatch"),
            has_gpu: super::has_gpu(),
        }
    }
}

impl Place {
    /// The place of this process. `login_nodes` are patterns of host names with `*`; see [`Place::judge`].
    pub fn detect(login_nodes: Option<&[String]>) -> Self {
        Self::judge(&Signs::read(), login_nodes)
    }

    /// Inside a job a host is no login node. Otherwise it is one if its name matches a pattern, or if it looks like one: jobs can be
    /// submitted from it and it has no GPU. An empty list of patterns says that no host is one.
    pub fn judge(signs: &Signs, login_nodes: Option<&[String]>) -> Self {
        if let Some(id) = &signs.job_id {
            return Self::SlurmJob { id: id.clone() };
        }
        let patterns = login_nodes.unwrap_or_default();
        if let Some(pattern) = patterns.iter().find(|pattern| matches(pattern, &signs.host)) {
            return Self::LoginNode { reason: format!("its name matches {pattern:?} of cluster.login_nodes") };
        }
        let may_guess = login_nodes.is_none_or(|patterns| !patterns.is_empty());
        match &signs.sbatch {
            Some(sbatch) if may_guess && !signs.has_gpu => {
                let id = env::SLURM_JOB_ID;
                Self::LoginNode { reason: format!("it has {}, no GPU, and {id} is not set", sbatch.display()) }
            }
            _ => Self::Workstation,
        }
    }
}

/// Refuses to train on a login node, unless `allow`ed by the user.
///
/// # Errors
/// [`TrackError::LoginNode`].
pub fn refuse_login_node(program: &str, login_nodes: Option<&[String]>, allow: bool) -> Result<()> {
    match Place::detect(login_nodes) {
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
