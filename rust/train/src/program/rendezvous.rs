//! Which process of a run this is, from what started it: torchrun, `srun`, or `num_processes`.

use super::env;
use hlrp_config::Problem;
use hlrp_schema::Device as DeviceChoice;
use hlrp_torch::{
    Meeting, Store,
    cuda::{CudaStatus, start_up},
};
use hlrp_track::{env::SLURM_JOB_ID, env::get, host::num_cores};
use std::{collections::BTreeSet, os::unix::process::parent_id, path::PathBuf, str::FromStr, time::Duration};
use tch::Device;

/// Ports for Slurm's steps: from the first of them, by the number of the job.
const FIRST_PORT: u64 = 15_000;
/// How many ports Slurm's steps use.
const NUM_PORTS: u64 = 15_000;
/// Address of this machine for processes on it.
const LOOPBACK: &str = "127.0.0.1";

/// What started the processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Launcher {
    /// This program, for `num_processes`.
    Own,
    /// torchrun, or anything that sets its variables.
    Torchrun,
    /// `srun`.
    Srun,
}

impl Launcher {
    fn name(self) -> &'static str {
        match self {
            Self::Own => "num_processes",
            Self::Torchrun => "torchrun",
            Self::Srun => "srun",
        }
    }
}

/// The place of this process among those of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rendezvous {
    pub(super) launcher: Launcher,
    pub(super) rank: usize,
    pub(super) size: usize,
    local_rank: usize,
    /// Processes on this machine.
    pub(super) local_size: usize,
    store: Store,
    prefix: String,
    is_local: bool,
}

impl Rendezvous {
    /// That of the environment; none where this process trains alone.
    ///
    /// # Errors
    /// Variables that are missing or contradict each other.
    pub(super) fn of_environment() -> Result<Option<Self>, Problem> {
        if get(env::RANK).is_some() || get(env::WORLD_SIZE).is_some() {
            let found = Self::of_torchrun()?;
            return Ok((found.size > 1 || found.launcher == Launcher::Own).then_some(found));
        }
        match get(env::SLURM_STEP_NUM_TASKS) {
            Some(_) if number::<usize>(env::SLURM_STEP_NUM_TASKS)? > 1 => Self::of_slurm().map(Some),
            _ => Ok(None),
        }
    }

    fn of_torchrun() -> Result<Self, Problem> {
        let (rank, size) = (number(env::RANK)?, number(env::WORLD_SIZE)?);
        if rank >= size {
            let message = format!("{rank}, but {} is {size}", env::WORLD_SIZE);
            return Err(Problem::new(env::RANK, message, "ranks count from 0; set both as torchrun does"));
        }
        let local_rank = if size == 1 { 0 } else { number(env::LOCAL_RANK)? };
        let local_size = optional(env::LOCAL_WORLD_SIZE)?.unwrap_or(size);
        let (launcher, store, is_local) = match get(env::HLRP_STORE) {
            Some(file) => (Launcher::Own, Store::File(PathBuf::from(file)), true),
            None if size == 1 => (Launcher::Torchrun, Store::File(PathBuf::new()), true),
            None => {
                let host = needed(env::MASTER_ADDR)?;
                let is_of_rank_0 = get(env::TORCHELASTIC_USE_AGENT_STORE).as_deref() != Some("True");
                let is_local = local_size == size;
                let port = number(env::MASTER_PORT)?;
                (Launcher::Torchrun, Store::Tcp { host, port, is_of_rank_0 }, is_local)
            }
        };
        let start = match launcher {
            Launcher::Own => get(env::HLRP_LAUNCHER),
            _ => get(env::TORCHELASTIC_RESTART_COUNT),
        };
        let prefix = format!("hlrp/{}", start.unwrap_or_default());
        Ok(Self { launcher, rank, size, local_rank, local_size, store, prefix, is_local })
    }

    fn of_slurm() -> Result<Self, Problem> {
        let (rank, size) = (number(env::SLURM_PROCID)?, number(env::SLURM_STEP_NUM_TASKS)?);
        let nodes = needed(env::SLURM_STEP_NODELIST)?;
        let is_local = optional(env::SLURM_STEP_NUM_NODES)?.unwrap_or(1) == 1;
        let host = match get(env::MASTER_ADDR) {
            Some(host) => host,
            None if is_local => LOOPBACK.to_owned(),
            None => first_host(&nodes),
        };
        let id = |name| get(name).and_then(|id| id.parse::<u64>().ok()).unwrap_or(0);
        let (job, step) = (id(SLURM_JOB_ID), id(env::SLURM_STEP_ID));
        let port = match get(env::MASTER_PORT) {
            Some(_) => number(env::MASTER_PORT)?,
            None => u16::try_from(FIRST_PORT + (job * 16 + step) % NUM_PORTS).unwrap_or(u16::MAX),
        };
        let local_size = match get(env::SLURM_STEP_TASKS_PER_NODE) {
            _ if is_local => size,
            Some(tasks) => first_number(&tasks).unwrap_or(1),
            None => 1,
        };
        Ok(Self {
            launcher: Launcher::Srun,
            rank,
            size,
            local_rank: number(env::SLURM_LOCALID)?,
            local_size,
            store: Store::Tcp { host, port, is_of_rank_0: true },
            prefix: format!("hlrp/{job}.{step}"),
            is_local,
        })
    }

    /// Distinguishes the processes of one start on this machine from those of others, also where the variables are wrong.
    pub(super) fn start_name() -> String {
        let of = |name| get(name).unwrap_or_default();
        format!("{} {}:{}", parent_id(), of(env::MASTER_ADDR), of(env::MASTER_PORT))
    }

    /// How to meet the others, waiting for them no longer than `timeout`.
    pub(super) fn meeting(&self, timeout: Duration) -> Meeting {
        Meeting {
            rank: self.rank,
            size: self.size,
            store: self.store.clone(),
            prefix: self.prefix.clone(),
            interface: get(env::GLOO_SOCKET_IFNAME),
            is_local: self.is_local,
            timeout,
        }
    }

    /// Refuses a `num_processes` that contradicts what started this process.
    ///
    /// # Errors
    /// Another launcher has started several processes already.
    pub(super) fn refuse_processes(&self, num_processes: hlrp_schema::NumProcesses) -> Result<(), Problem> {
        if self.launcher == Launcher::Own || num_processes.is_one() {
            return Ok(());
        }
        let launcher = self.launcher.name();
        let message = format!("{num_processes}, but {launcher} has started {} processes already", self.size);
        let hint = format!("set num_processes=1: {launcher} decides how many there are");
        Err(Problem::new("num_processes", message, hint))
    }

    /// The device of this process: with GPUs that of its rank on the machine, or the only one that it sees.
    ///
    /// # Errors
    /// Fewer GPUs than processes, or a device that all processes would share.
    pub(super) fn device(&self, wanted: DeviceChoice) -> anyhow::Result<Device> {
        let asks_for_gpu = match wanted {
            DeviceChoice::Cpu => return Ok(Device::Cpu),
            DeviceChoice::Cuda(0) => true,
            DeviceChoice::Cuda(index) => return Err(refuse_one_gpu(index, self.size).into()),
            DeviceChoice::Auto => false,
        };
        match start_up() {
            CudaStatus::Ready { num_devices: 1 } => Ok(Device::Cuda(0)),
            CudaStatus::Ready { num_devices } if self.local_rank < *num_devices => Ok(Device::Cuda(self.local_rank)),
            CudaStatus::Ready { num_devices } => Err(too_few_gpus(self.local_size, *num_devices).into()),
            _ if asks_for_gpu => Ok(hlrp_torch::select_device(Some(Device::Cuda(self.local_rank)))?),
            _ => Ok(hlrp_torch::select_device(None)?),
        }
    }

    /// CPU cores of this process.
    pub(super) fn num_cores(&self) -> usize {
        let of_task = get(env::SLURM_CPUS_PER_TASK).and_then(|cores| cores.parse().ok());
        match (self.launcher, of_task) {
            (Launcher::Srun, Some(cores)) => cores,
            _ => (num_cores() / self.local_size.max(1)).max(1),
        }
    }
}

/// A GPU for each of `num_processes` processes of this machine cannot be had.
pub(super) fn too_few_gpus(num_processes: usize, num_gpus: usize) -> Problem {
    let message = format!("{num_processes} processes on this machine, which has {num_gpus} GPU(s)");
    Problem::new("num_processes", message, "start as many as there are GPUs (num_processes=auto), or set device=cpu")
}

/// Refuses a GPU that two processes use: `gpus` has the machine and the GPU of each by rank.
///
/// # Errors
/// A GPU that is there twice.
pub(super) fn refuse_shared_gpu(gpus: &[String], local_size: usize) -> Result<(), Problem> {
    let distinct: BTreeSet<&String> = gpus.iter().collect();
    if distinct.len() == gpus.len() {
        return Ok(());
    }
    let machine = |gpu: &str| gpu.split(' ').next().unwrap_or_default().to_owned();
    let shared = gpus.iter().enumerate().find(|(rank, gpu)| gpus[..*rank].contains(gpu)).map(|(_, gpu)| machine(gpu));
    let num_gpus = distinct.iter().filter(|gpu| Some(machine(gpu)) == shared).count();
    Err(too_few_gpus(local_size, num_gpus))
}

/// One GPU, named by its number, for several processes.
pub(super) fn refuse_one_gpu(index: usize, num_processes: usize) -> Problem {
    let message = format!("cuda:{index} is one GPU, but the run has {num_processes} processes");
    Problem::new(
        "device",
        message,
        "set device=cuda: each process uses a GPU of its own; CUDA_VISIBLE_DEVICES chooses which",
    )
}

const START: &str = "start the processes with torchrun or srun, or set num_processes";

fn needed(name: &'static str) -> Result<String, Problem> {
    get(name).ok_or_else(|| Problem::new(name, "the variable is not set, but others of its kind are", START))
}

fn parsed<T: FromStr>(name: &'static str, text: &str) -> Result<T, Problem> {
    text.trim().parse().map_err(|_| Problem::new(name, format!("the variable is '{text}', not a number"), START))
}

fn number<T: FromStr>(name: &'static str) -> Result<T, Problem> {
    parsed(name, &needed(name)?)
}

fn optional(name: &'static str) -> Result<Option<usize>, Problem> {
    get(name).map(|text| parsed(name, &text)).transpose()
}

/// The number at the beginning of a text such as `4(x2)`.
fn first_number(text: &str) -> Option<usize> {
    text.split(|char: char| !char.is_ascii_digit()).next()?.parse().ok()
}

/// The first host of Slurm's short form, such as `n[08-10,12],m1`.
fn first_host(nodes: &str) -> String {
    let Some((prefix, rest)) = nodes.split_once('[').filter(|(prefix, _)| !prefix.contains(',')) else {
        return nodes.split(',').next().unwrap_or_default().to_owned();
    };
    let (numbers, rest) = rest.split_once(']').unwrap_or((rest, ""));
    let first = numbers.split([',', '-']).next().unwrap_or_default();
    let suffix = rest.split(',').next().unwrap_or_default();
    // A name may have several ranges: n[1-2]r[3-4].
    let suffix = if suffix.contains('[') { first_host(suffix) } else { suffix.to_owned() };
    format!("{prefix}{first}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_host_of_a_list() {
        for (nodes, first) in
            [("n1", "n1"), ("n1,n2", "n1"), ("n[08-10,12],m1", "n08"), ("a,n[1-2]", "a"), ("n[3,5]-ib", "n3-ib")]
        {
            assert_eq!(first_host(nodes), first, "{nodes}");
        }
    }

    #[test]
    fn a_gpu_of_two_processes_is_refused() {
        let gpus = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(refuse_shared_gpu(&gpus(&["n1 a", "n1 b", "n2 a", "n2 b"]), 2).is_ok());
        let refused = refuse_shared_gpu(&gpus(&["n1 a", "n1 b", "n2 c", "n2 c"]), 2).map_err(|error| error.to_string());
        assert!(refused.is_err_and(|text| text.contains("2 processes on this machine, which has 1 GPU(s)")));
    }

    #[test]
    fn tasks_of_the_first_machine() {
        assert_eq!((first_number("4(x2),3"), first_number("2"), first_number("")), (Some(4), Some(2), None));
    }
}
