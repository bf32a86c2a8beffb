//! One command, its output, and its end within a time limit.

use super::SlurmError;
use rustix::process::{Pid, Signal, kill_process_group};
use std::{
    ffi::{OsStr, OsString},
    io::Read,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

/// Variables with which a user or an interactive allocation changes what Slurm's commands do.
const PREFIXES: [&str; 9] =
    ["SLURM_", "SBATCH_", "SQUEUE_", "SCANCEL_", "SACCT_", "SINFO_", "SRUN_", "SALLOC_", "SCONTROL_"];
/// Those that say where Slurm is, and who asks.
const KEPT: [&str; 3] = ["SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT"];
/// Interval at which the command is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// What a command printed.
#[derive(Debug)]
pub(super) struct Output {
    program: &'static str,
    is_success: bool,
    pub(super) stdout: String,
    stderr: String,
}

impl Output {
    /// This output, if the command succeeded.
    pub(super) fn checked(self) -> Result<Self, SlurmError> {
        if self.is_success {
            return Ok(self);
        }
        Err(SlurmError::Refused { program: self.program, message: self.message() })
    }

    /// What it says to a person, in one line and without its own name.
    pub(super) fn message(&self) -> String {
        let text = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        let name = format!("{}: ", self.program);
        let lines = text.lines().map(|line| {
            let line = line.trim();
            let line = line.strip_prefix(&name).unwrap_or(line);
            line.strip_prefix("error: ").or_else(|| line.strip_prefix("fatal: ")).unwrap_or(line)
        });
        let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
        if lines.is_empty() { "failed without a message".to_owned() } else { lines.join("; ") }
    }

    /// The error for an output that is not what the command prints.
    pub(super) fn unreadable(&self) -> SlurmError {
        SlurmError::Unreadable { program: self.program, output: self.stdout.trim().chars().take(200).collect() }
    }
}

/// Runs a command of Slurm. It has a process group of its own, which is killed if it takes longer than `limit`.
pub(super) fn run(
    program: &'static str,
    arguments: impl Iterator<Item = OsString>,
    limit: Duration,
) -> Result<Output, SlurmError> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_removed(name)) {
        command.env_remove(name);
    }
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => SlurmError::Missing { program },
        _ => SlurmError::Io { program, source },
    };
    let deadline = Instant::now() + limit;
    let mut child = command.spawn().map_err(failed)?;
    let (stdout, stderr) = (read(child.stdout.take()), read(child.stderr.take()));
    let output = wait(&mut child, deadline).map_err(failed)?.and_then(|is_success| {
        let left = || deadline.saturating_duration_since(Instant::now());
        let stdout = stdout.recv_timeout(left()).ok()?;
        Some(Output { program, is_success, stdout, stderr: stderr.recv_timeout(left()).ok()? })
    });
    output.ok_or(SlurmError::TimedOut { program, limit })
}

fn is_removed(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) && !KEPT.contains(&&*name)
}

/// Whether the command succeeded; none if it was killed at the deadline.
fn wait(child: &mut Child, deadline: Instant) -> std::io::Result<Option<bool>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        if Instant::now() >= deadline {
            // It may have ended just now.
            let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// Reads a stream to its end in a thread, so that a full pipe stops nobody.
fn read(stream: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What was read until then is the output.
            let _ = stream.read_to_end(&mut bytes);
        }
        // Nobody waits for it after the time limit.
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn arguments<const N: usize>(words: [&str; N]) -> impl Iterator<Item = OsString> {
        words.into_iter().map(OsString::from)
    }

    #[test]
    fn a_command_that_hangs_is_killed_with_what_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        let script = format!("sleep 60 & echo $! > {}; wait", pid_file.display());
        let start = Instant::now();
        let error = run("sh", arguments(["-c", &script]), Duration::from_millis(500)).unwrap_err();
        assert!(matches!(error, SlurmError::TimedOut { program: "sh", .. }), "{error}");
        assert!(start.elapsed() < Duration::from_secs(10));
        let pid: u32 = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
        let is_gone = || !std::path::Path::new(&format!("/proc/{pid}")).exists() || is_zombie(pid);
        assert!((0..500).any(|_| is_gone() || {
            thread::sleep(Duration::from_millis(10));
            false
        }));
    }

    fn is_zombie(pid: u32) -> bool {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
    }

    #[test]
    fn a_refusal_has_the_command_s_own_words() {
        let script =
            "echo 'sh: error: invalid partition'; echo 'sh: error: invalid partition' >&2; echo again >&2; exit 1";
        let error = run("sh", arguments(["-c", script]), Duration::from_secs(10)).unwrap().checked().unwrap_err();
        assert_eq!(error.to_string(), "sh: invalid partition; again");
    }

    #[test]
    fn a_missing_command_is_named() {
        let error = run("hlrp-no-such-command", arguments([]), Duration::from_secs(10)).unwrap_err();
        assert!(matches!(error, SlurmError::Missing { .. }), "{error}");
    }

    #[test]
    fn an_allocation_s_settings_do_not_reach_slurm() {
        for name in ["SLURM_MEM_PER_CPU", "SBATCH_PARTITION", "SQUEUE_FORMAT", "SLURM_CLUSTERS", "SLURM_JOB_ID"] {
            assert!(is_removed(OsStr::new(name)), "{name}");
        }
        for name in ["SLURM_CONF", "PATH", "HOME", "MY_SLURM_NOTES"] {
            assert!(!is_removed(OsStr::new(name)), "{name}");
        }
    }
}
