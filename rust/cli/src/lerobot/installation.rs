//! Which LeRobot: the program and the Python that runs it.

use crate::error::CommandError;
use anyhow::Result;
use hlrp_config::Problem;
use hlrp_track::host::find_program;
use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

/// This project's own environment, relative to the working directory.
const OWN_ENVIRONMENT: &str = ".venv/bin";
/// Names of interpreters, the usual one first.
const PYTHONS: [&str; 2] = ["python", "python3"];

/// A LeRobot program and its interpreter.
#[derive(Debug, Clone)]
pub(super) struct Installation {
    /// `lerobot-train` or `lerobot-eval`.
    pub(super) program: PathBuf,
    /// The Python that runs it.
    pub(super) python: PathBuf,
}

impl Installation {
    /// `command` as a path, on `PATH`, or in the environment of this project. `section` is that of the configuration, for errors.
    ///
    /// # Errors
    /// It is not found, or has no interpreter.
    pub(super) fn find(section: &str, command: &str, python: Option<&str>) -> Result<Self> {
        let program = find(command).ok_or_else(|| {
            let message = format!("{command} is neither on PATH nor in {OWN_ENVIRONMENT}");
            let hint = format!(
                "activate the environment in which LeRobot is installed, or give its path with {section}.command=...; \
                 `pip install lerobot==0.6.1` installs it, and so does scripts/setup.sh"
            );
            CommandError::new(message, hint)
        })?;
        let python = match python {
            Some(python) => {
                let key = format!("{section}.python");
                let hint = "give the name or path of a Python interpreter, or null for the one of the command";
                find(python).ok_or_else(|| Problem::new(key, format!("{python} is not a program"), hint))?
            }
            None => interpreter_of(&program).ok_or_else(|| {
                let message = format!("no Python beside {}", program.display());
                CommandError::new(message, format!("name the one that runs it with {section}.python=..."))
            })?,
        };
        Ok(Self { program, python })
    }
}

fn find(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| path.is_file());
    }
    let own = || Some(Path::new(OWN_ENVIRONMENT).join(name)).filter(|path| path.is_file());
    find_program(name).or_else(own)
}

/// The Python beside a program; else the one in its first line.
fn interpreter_of(program: &Path) -> Option<PathBuf> {
    let folder = program.parent().unwrap_or(Path::new("."));
    let beside = PYTHONS.map(|name| folder.join(name)).into_iter().find(|path| path.is_file());
    beside.or_else(|| shebang(program)).or_else(|| PYTHONS.into_iter().find_map(find_program))
}

fn shebang(program: &Path) -> Option<PathBuf> {
    let mut line = String::new();
    BufReader::new(fs::File::open(program).ok()?).read_line(&mut line).ok()?;
    let path = PathBuf::from(line.strip_prefix("#!")?.trim());
    let is_python = path.file_name()?.to_string_lossy().starts_with("python");
    (is_python && path.is_file()).then_some(path)
}
