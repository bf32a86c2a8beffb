//! One process for each rank on this machine, for `num_processes`: started, watched, told of signals.

use super::{
    env,
    rendezvous::{refuse_one_gpu, too_few_gpus},
};
use anyhow::{Context, Result};
use hlrp_config::Problem;
use hlrp_schema::{Device, NumProcesses};
use hlrp_torch::cuda::{CudaStatus, start_up};
use hlrp_track::{
    env::get,
    exit_code,
    signals::{OnSignal, StopSignals},
};
use rustix::{
    fs::{MemfdFlags, memfd_create},
    process::{Pid, Signal, getpid, kill_process, set_parent_process_death_signal},
};
use signal_hook::consts::{SIGINT, SIGUSR1};
use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt, parent_id},
    },
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Interval at which processes and signals are polled.
const POLL: Duration = Duration::from_millis(20);
/// What the others of a process that has failed may need beyond `training.distributed.timeout_s` to end by themselves.
const GRACE: Duration = Duration::from_secs(15);
/// What a process may still need that the others have given up.
const GRACE_OF_MISSING: Duration = Duration::from_secs(5);

/// How many processes `num_processes` and `device` ask for.
///
/// # Errors
/// More than there are GPUs.
pub(super) fn count(num_processes: NumProcesses, device: Device) -> Result<usize, Problem> {
    let num_gpus = || match (device, num_processes) {
        (Device::Cpu, _) | (_, NumProcesses::Count(1)) => None,
        _ => match start_up() {
            CudaStatus::Ready { num_devices } => Some(*num_devices),
            _ => None,
        },
    };
    let num_gpus = num_gpus();
    let count = match num_processes {
        NumProcesses::Auto => num_gpus.unwrap_or(1),
        NumProcesses::Count(count) => count,
    };
    match (device, num_gpus) {
        (Device::Cuda(index), _) if index > 0 && count > 1 => Err(refuse_one_gpu(index, count)),
        (Device::Cuda(_), None) if count > 1 => Err(too_few_gpus(count, 0)),
        (_, Some(num_gpus)) if count > num_gpus => Err(too_few_gpus(count, num_gpus)),
        _ => Ok(count),
    }
}

/// Runs this program `count` times with the same arguments and waits for all; the first writes to the terminal itself, the others only errors
/// and warnings about their own samples. Returns the exit code of the run.
///
/// # Errors
/// A process cannot be started.
pub(super) fn run(count: usize, timeout: Duration) -> Result<u8> {
    let signals = StopSignals::listen()?;
    signals.on_signal(OnSignal::PassOn);
    let (store, missing) = (SharedFile::new("hlrp-store")?, SharedFile::new("hlrp-missing")?);
    let program = std::env::current_exe().context("cannot find the path of this program")?;
    let mut processes = Processes(Vec::new());
    for rank in 0..count {
        let mut command = Command::new(&program);
        command
            .args(std::env::args_os().skip(1))
            .env(env::HLRP_STORE, store.path())
            .env(env::HLRP_MISSING, missing.path())
            .env(env::HLRP_LAUNCHER, std::process::id().to_string())
            .env(env::RANK, rank.to_string())
            .env(env::LOCAL_RANK, rank.to_string())
            .env(env::WORLD_SIZE, count.to_string())
            .env(env::LOCAL_WORLD_SIZE, count.to_string())
            // A Ctrl-C reaches each process once: through this one.
            .process_group(0);
        if rank > 0 {
            command.stdin(Stdio::null()).stdout(Stdio::null());
        }
        let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        processes.0.push(Started { child, end: None, missing_since: None });
    }
    processes.watch(&signals, timeout, &missing)
}

/// In a process of [`run`]: the end of the one that started it is a request to save the work and end, also where it has ended already.
pub(super) fn follow_launcher() -> Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM))?;
    if get(env::HLRP_LAUNCHER).is_some_and(|launcher| launcher != parent_id().to_string()) {
        kill_process(getpid(), Signal::TERM)?;
    }
    Ok(())
}

/// In a process of [`run`]: tells it that these processes are gone or hang, so that it does not wait for them any more.
pub(super) fn name_missing(ranks: &[usize]) {
    let Some(path) = get(env::HLRP_MISSING).filter(|_| !ranks.is_empty()) else { return };
    let lines: String = ranks.iter().map(|rank| format!("{rank}\n")).collect();
    let written = OpenOptions::new().append(true).open(path).and_then(|mut file| file.write_all(lines.as_bytes()));
    if let Err(error) = written {
        tracing::debug!("the missing processes cannot be named: {error}"); // [`run`] then ends them later
    }
}

/// A file in memory for the processes of a run: nothing is left of it, however they end.
struct SharedFile(OwnedFd);

impl SharedFile {
    fn new(name: &str) -> Result<Self> {
        // The processes that are started inherit it.
        let file = memfd_create(name, MemfdFlags::empty()).context("cannot make a file in memory")?;
        Ok(Self(file))
    }

    /// Its path in this process and in those that it starts.
    fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }
}

/// A process of the run.
struct Started {
    child: Child,
    end: Option<ExitStatus>,
    /// When another one named it as missing.
    missing_since: Option<Instant>,
}

/// The processes by rank.
struct Processes(Vec<Started>);

impl Processes {
    fn watch(mut self, signals: &StopSignals, timeout: Duration, missing: &SharedFile) -> Result<u8> {
        let mut first_failure = None;
        loop {
            for Started { child, end, .. } in &mut self.0 {
                if end.is_none() {
                    *end = child.try_wait().context("cannot wait for a process of the run")?;
                }
            }
            let ends: Vec<ExitStatus> = self.0.iter().filter_map(|process| process.end).collect();
            if ends.len() == self.0.len() {
                return Ok(code_of(&ends));
            }
            if first_failure.is_none() && ends.iter().any(|end| !end.success()) {
                first_failure = Some(Instant::now());
            }
            if let Some(since) = first_failure {
                self.end_missing(missing);
                // Nor does this one wait for ever where no one is left to name a process that hangs.
                if since.elapsed() > timeout + GRACE {
                    self.send(Signal::KILL);
                }
            }
            if let Some(signal) = signals.take() {
                self.send(match signal {
                    SIGINT => Signal::INT,
                    SIGUSR1 => Signal::USR1,
                    _ => Signal::TERM,
                });
            }
            thread::sleep(POLL);
        }
    }

    /// Ends those that the others have named as missing.
    fn end_missing(&mut self, missing: &SharedFile) {
        let named = fs::read_to_string(missing.path()).unwrap_or_default();
        for rank in named.lines().filter_map(|line| line.parse::<usize>().ok()) {
            let Some(process) = self.0.get_mut(rank) else { continue };
            if process.missing_since.get_or_insert_with(Instant::now).elapsed() > GRACE_OF_MISSING {
                process.send(Signal::KILL);
            }
        }
    }

    fn send(&self, signal: Signal) {
        self.0.iter().for_each(|process| process.send(signal));
    }
}

impl Started {
    fn send(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).filter(|_| self.end.is_none());
        if let Some(Err(error)) = pid.map(|pid| kill_process(pid, signal)) {
            tracing::debug!("a process of the run has ended already: {error}");
        }
    }
}

impl Drop for Processes {
    /// Leaves no process behind where one could not be started.
    fn drop(&mut self) {
        self.send(Signal::TERM);
    }
}

/// The exit code of a run by those of its processes: an error of a process, else that it was interrupted, else the signal that ended one.
fn code_of(ends: &[ExitStatus]) -> u8 {
    let codes = || ends.iter().filter_map(ExitStatus::code).filter_map(|code| u8::try_from(code).ok());
    let by_signal = ends.iter().find_map(|end| end.signal()).and_then(|signal| u8::try_from(128 + signal).ok());
    let is_error = |code: &u8| *code != 0 && *code != exit_code::INTERRUPTED;
    let interrupted = || codes().find(|code| *code == exit_code::INTERRUPTED);
    codes().find(is_error).or_else(interrupted).or(by_signal).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_that_of_the_cause() {
        let exited = |code: i32| ExitStatus::from_raw(code << 8);
        let killed = ExitStatus::from_raw(9);
        assert_eq!(code_of(&[exited(0), exited(0)]), 0);
        assert_eq!(code_of(&[exited(75), exited(75)]), 75);
        assert_eq!(code_of(&[exited(75), exited(65)]), 65);
        assert_eq!(code_of(&[exited(75), killed]), 75);
        assert_eq!(code_of(&[exited(0), killed]), 137);
    }
}
