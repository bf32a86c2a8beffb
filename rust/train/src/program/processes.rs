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
    exit_code,
    signals::{OnSignal, StopSignals},
};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use signal_hook::consts::{SIGINT, SIGUSR1};
use std::{
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Interval at which processes and signals are polled.
const POLL: Duration = Duration::from_millis(20);
/// What the others of a process that has failed may need beyond `training.distributed.timeout_s` to end by themselves.
const GRACE: Duration = Duration::from_secs(15);

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

/// Runs this program `count` times with the same arguments and waits for all; the first writes to the terminal itself, the others only errors.
/// Returns the exit code of the run.
///
/// # Errors
/// A process cannot be started.
pub(super) fn run(count: usize, timeout: Duration) -> Result<u8> {
    let signals = StopSignals::listen()?;
    signals.on_signal(OnSignal::PassOn);
    let folder = tempfile::Builder::new().prefix("hlrp-").tempdir().context("cannot make a temporary folder")?;
    let program = std::env::current_exe().context("cannot find the path of this program")?;
    let mut processes = Processes(Vec::new());
    for rank in 0..count {
        let mut command = Command::new(&program);
        command
            .args(std::env::args_os().skip(1))
            .env(env::HLRP_STORE, folder.path().join("store"))
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
        processes.0.push((child, None));
    }
    processes.watch(&signals, timeout)
}

/// Ends with a request to save its work when the process that started it is gone.
pub(super) fn follow_parent() -> Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::TERM))?)
}

/// The processes by rank, each with its end.
struct Processes(Vec<(Child, Option<ExitStatus>)>);

impl Processes {
    fn watch(mut self, signals: &StopSignals, timeout: Duration) -> Result<u8> {
        let mut first_failure = None;
        loop {
            for (child, end) in &mut self.0 {
                if end.is_none() {
                    *end = child.try_wait().context("cannot wait for a process of the run")?;
                }
            }
            let ends: Vec<ExitStatus> = self.0.iter().filter_map(|(_, end)| *end).collect();
            if ends.len() == self.0.len() {
                return Ok(code_of(&ends));
            }
            if first_failure.is_none() && ends.iter().any(|end| !end.success()) {
                first_failure = Some(Instant::now());
            }
            // A process that hangs is ended: the others do not wait for it any more.
            if first_failure.is_some_and(|since| since.elapsed() > timeout + GRACE) {
                self.send(Signal::KILL);
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

    fn send(&self, signal: Signal) {
        for (child, _) in self.0.iter().filter(|(_, end)| end.is_none()) {
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            if let Some(Err(error)) = pid.map(|pid| kill_process(pid, signal)) {
                tracing::debug!("a process of the run has ended already: {error}");
            }
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
