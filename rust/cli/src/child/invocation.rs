//! A command line with its environment: shown or started.

use hlrp_config::secret::{redact_arguments, redact_value};
use hlrp_slurm::shell::quoted;
use hlrp_track::host::find_program;
use rustix::process::Signal;
use signal_hook::consts::{SIGINT, SIGUSR1};
use std::{collections::BTreeMap, path::PathBuf, process::Command};

/// Kills a program whose parent has gone; part of util-linux.
const SETPRIV: &str = "setpriv";

/// What is started.
#[derive(Debug, Clone)]
pub(crate) struct Invocation {
    /// The program.
    pub(crate) program: PathBuf,
    /// Its arguments.
    pub(crate) arguments: Vec<String>,
    /// Variables that it has besides those of this process.
    pub(crate) env: BTreeMap<String, String>,
    /// Whether it knows SIGUSR1 as a request to stop; others get SIGTERM in its place.
    pub(crate) knows_usr1: bool,
}

impl Invocation {
    /// As a shell reads it, one argument per line, without secrets.
    pub(crate) fn to_shell(&self) -> String {
        let variables = self.env.iter().map(|(name, value)| format!("{name}={} ", quoted(&redact_value(name, value))));
        let program = self.program.to_string_lossy().into_owned();
        let arguments = std::iter::once(program).chain(redact_arguments(self.arguments.iter().cloned()));
        let arguments: Vec<String> = arguments.map(|argument| quoted(&argument)).collect();
        variables.collect::<String>() + &arguments.join(" \\\n  ")
    }

    pub(super) fn command(&self) -> Command {
        let mut command = match find_program(SETPRIV) {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "TERM", "--"]).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command.args(&self.arguments).envs(&self.env);
        command
    }

    pub(super) fn signal_for(&self, signal: i32) -> Signal {
        match signal {
            SIGINT => Signal::INT,
            SIGUSR1 if self.knows_usr1 => Signal::USR1,
            _ => Signal::TERM,
        }
    }
}
