//! Workstation, Slurm job or login node.

use crate::{Result, TrackError, command::output_within, env};
use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
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

/// What a machine shows about its kind.
#[derive(Debug, Clone)]
pub struct Signs {
    /// Host name.
    pub host: String,
    /// Id of the Slurm job that this process belongs to.
    pub job_id: Option<String>,
    /// Slurm's program that submits jobs, if Slurm is configured too.
    pub sbatch: Option<PathBuf>,
    /// Whether the driver shows a GPU.
    pub has_gpu: bool,
}

/// What Slurm's controller says about a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    /// The host is one of its compute nodes.
    Listed,
    /// The host is not.
    NotListed,
    /// Nothing: it cannot be asked, or does not answer.
    NoAnswer,
}

/// How long Slurm's controller may take to answer.
const CONTROLLER_TIMEOUT: Duration = Duration::from_secs(5);

impl Signs {
    /// Those of this machine.
    pub fn read() -> Self {
        Self {
            host: super::hostname(),
            job_id: env::get(env::SLURM_JOB_ID),
            sbatch: find_program("sbatch").filter(|_| has_slurm_configuration()),
            has_gpu: super::has_gpu(),
        }
    }
}

/// Whether this machine belongs to a cluster; an installed Slurm alone does not mean that.
fn has_slurm_configuration() -> bool {
    let usual = [
        "/etc/slurm/slurm.conf",
        "/etc/slurm-llnl/slurm.conf",
        "/run/slurm/conf/slurm.conf",
        "/var/spool/slurmd/conf-cache/slurm.conf",
    ];
    match env::get(env::SLURM_CONF) {
        Some(named) => Path::new(&named).is_file(),
        None => usual.iter().any(|path| Path::new(path).is_file()),
    }
}

fn ask_controller(host: &str) -> Controller {
    let Some(scontrol) = find_program("scontrol") else { return Controller::NoAnswer };
    let short = host.split('.').next().unwrap_or(host);
    let mut command = Command::new(scontrol);
    command.args(["show", "node", short]);
    let Ok(output) = output_within(&mut command, CONTROLLER_TIMEOUT) else { return Controller::NoAnswer };
    let answer = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).to_lowercase()).concat();
    if answer.contains("nodename=") {
        Controller::Listed
    } else if answer.contains("not found") || answer.contains("invalid node name") {
        Controller::NotListed
    } else {
        Controller::NoAnswer
    }
}

impl Place {
    /// The place of this process. `login_nodes` are patterns of host names with `*`; see [`Place::judge`].
    pub fn detect(login_nodes: Option<&[String]>) -> Self {
        let signs = Signs::read();
        Self::judge(&signs, login_nodes, || ask_controller(&signs.host))
    }

    /// Inside a job a host is no login node. Otherwise it is one if its name matches a pattern, or if it looks like one: Slurm is configured,
    /// `sbatch` is there, and the controller does not list the host as a compute node. A host that is not listed but has a GPU is a workstation;
    /// if the controller does not answer (maintenance), the host counts as a login node, with a GPU too. An empty list of patterns says that no
    /// host is one. `controller` is asked only if nothing else decides.
    pub fn judge(signs: &Signs, login_nodes: Option<&[String]>, controller: impl FnOnce() -> Controller) -> Self {
        if let Some(id) = &signs.job_id {
            return Self::SlurmJob { id: id.clone() };
        }
        let patterns = login_nodes.unwrap_or_default();
        if let Some(pattern) = patterns.iter().find(|pattern| matches(pattern, &signs.host)) {
            return Self::LoginNode { reason: format!("its name matches {pattern:?} of cluster.login_nodes") };
        }
        let may_guess = login_nodes.is_none_or(|patterns| !patterns.is_empty());
        let Some(sbatch) = signs.sbatch.as_ref().filter(|_| may_guess) else { return Self::Workstation };
        let (sbatch, id) = (sbatch.display(), env::SLURM_JOB_ID);
        let reason = match controller() {
            Controller::Listed => return Self::Workstation,
            Controller::NotListed if signs.has_gpu => return Self::Workstation,
            Controller::NotListed => {
                format!("it has {sbatch}, no GPU, {id} is not set, and Slurm does not list it as a compute node")
            }
            Controller::NoAnswer => {
                format!(
                    "it has {sbatch} and a Slurm configuration, {id} is not set, and the controller does not answer"
                )
            }
        };
        Self::LoginNode { reason }
    }
}

/// Refuses to train on a login node, unless `allow`ed by the user.
///
/// # Errors
/// [`TrackError::LoginNode`].
pub fn refuse_login_node(program: &str, login_nodes: Option<&[String]>, allow: bool) -> Result<()> {
    if allow {
        return Ok(());
    }
    match Place::detect(login_nodes) {
        Place::LoginNode { reason } => {
            Err(TrackError::LoginNode { program: program.into(), host: super::hostname(), reason })
        }
        Place::Workstation | Place::SlurmJob { .. } => Ok(()),
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
pub fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|tail| {
            (0..=tail.len()).filter(|&at| tail.is_char_boundary(at)).any(|at| matches(rest, &tail[at..]))
        }),
    }
}
