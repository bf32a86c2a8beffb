//! Programs that run below this one, with signals passed on to them.

mod invocation;
mod tee;

pub(crate) use invocation::Invocation;
pub(crate) use tee::Tee;

use anyhow::{Context, Result};
use hlrp_track::signals::{OnSignal, StopSignals};
use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::SIGINT;
use std::{
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, ExitStatus, Stdio},
    thread,
    time::Duration,
};

/// Interval at which the child and the signals are polled.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// This many SIGINTs are passed on to the child before it is killed. SIGUSR1 and SIGTERM never kill it: Slurm sends both to a job that should
/// save its work.
const MAX_SIGINTS: usize = 2;

/// How a child ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    /// Its exit code; 128 plus the number of the signal that ended it, as shells say it.
    pub(crate) code: u8,
    /// Whether this process was asked to stop meanwhile.
    pub(crate) is_interrupted: bool,
}

/// Starts `invocation` and waits for its end. It has a process group of its own, so that a Ctrl-C reaches it once: through this process.
///
/// With `tee` its output appears here and is recorded; without, it writes to the terminal itself.
///
/// # Errors
/// It cannot be started.
pub(crate) fn run(invocation: &Invocation, signals: &StopSignals, tee: Option<Tee>) -> Result<Ended> {
    signals.on_signal(OnSignal::PassOn);
    let mut command = invocation.command();
    command.process_group(0).stdin(Stdio::null());
    if tee.is_some() {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
    }
    let mut child = command.spawn().with_context(|| format!("cannot start {}", invocation.program.display()))?;
    let streams = tee.map(|tee| tee.follow(&mut child));
    let (mut num_requests, mut num_sigints) = (0, 0);
    let status = loop {
        if let Some(status) = child.try_wait().context("cannot wait for a child process")? {
            break status;
        }
        if let Some(signal) = signals.take() {
            num_requests += 1;
            num_sigints += usize::from(signal == SIGINT);
            send(&child, if num_sigints > MAX_SIGINTS { Signal::KILL } else { invocation.signal_for(signal) });
        }
        thread::sleep(POLL_INTERVAL);
    };
    if let Some(streams) = streams {
        streams.finish();
    }
    // A signal may have ended both processes before the loop saw it.
    let is_interrupted = num_requests > 0 || signals.take().is_some();
    Ok(Ended { code: exit_code(status), is_interrupted })
}

fn send(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(Err(error)) = pid.map(|pid| kill_process_group(pid, signal)) {
        tracing::debug!("the child process has ended already: {error}");
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}
