//! The policy plugin in LeRobot's environment: looked for first, installed if it is missing.

use crate::error::CommandError;
use anyhow::{Context, Result, bail};
use hlrp_config::Problem;
use hlrp_track::host::find_program;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Prints, as JSON, the versions of the distributions that are asked for, and whether each can be found as a module too.
const PROBE: &str = "\
import importlib.metadata as metadata, importlib.util as util, json, sys
def look(name):
    try:
        found = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return None
    return {'version': found['Version'], 'name': found['Name'], 'is_module': util.find_spec(name) is not None}
names = {name: look(name) for name in sys.argv[1:]}
print(json.dumps({'python': sys.version.split()[0], 'distributions': names}))
";
/// Prints the folder of a module.
const LOCATE: &str =
    "import importlib.util as util, sys; print(*util.find_spec(sys.argv[1]).submodule_search_locations)";
/// Without the working directory, in which a folder may have the name of the package.
const SAFE_PATH: &str = "-P";
/// Python itself, among the versions.
pub(super) const PYTHON: &str = "python";
const NO_PIP: &str = "No module named pip";

/// What a Python has installed.
#[derive(Debug, Deserialize)]
pub(super) struct Probe {
    /// Its version.
    python: String,
    /// What was asked for; nothing where it is not installed.
    distributions: BTreeMap<String, Option<Distribution>>,
}

#[derive(Debug, Deserialize)]
struct Distribution {
    version: String,
    name: String,
    is_module: bool,
}

impl Probe {
    /// Asks `python` for distributions.
    ///
    /// # Errors
    /// It does not start or does not answer.
    pub(super) fn ask(python: &Path, names: &[&str]) -> Result<Self> {
        let output = Command::new(python).args([SAFE_PATH, "-c", PROBE]).args(names).output();
        let output = output.with_context(|| format!("cannot start {}", python.display()))?;
        if !output.status.success() {
            bail!("{} cannot say what it has installed: {}", python.display(), last_line(&output.stderr));
        }
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("{} does not answer as a Python does", python.display()))
    }

    /// Versions of Python and of what is installed, by name.
    pub(super) fn versions(&self) -> BTreeMap<String, String> {
        let found =
            self.distributions.iter().filter_map(|(name, found)| Some((name.clone(), found.as_ref()?.version.clone())));
        found.chain([(PYTHON.to_owned(), self.python.clone())]).collect()
    }

    /// Whether LeRobot finds the plugin `name`: it compares the distribution's name to the letter, and imports a module of that name.
    fn has_plugin(&self, name: &str) -> bool {
        let found = self.distributions.get(name).and_then(Option::as_ref);
        found.is_some_and(|found| found.name == name && found.is_module)
    }
}

/// Folder of a module of `python`, which is not imported for that; nothing where it is not installed.
pub(super) fn module_folder(python: &Path, name: &str) -> Option<PathBuf> {
    let output = Command::new(python).args([SAFE_PATH, "-c", LOCATE, name]).output().ok()?;
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    path.is_dir().then_some(path)
}

/// The part of a `pyproject.toml` that is read.
#[derive(Deserialize)]
struct PyProject {
    project: Project,
}

#[derive(Deserialize)]
struct Project {
    name: String,
}

/// A policy plugin and the folder that it can be installed from.
#[derive(Debug)]
pub(super) struct Plugin {
    folder: PathBuf,
    /// Of the distribution and of the module.
    pub(super) name: String,
}

impl Plugin {
    const PROJECT: &str = "pyproject.toml";

    /// Reads the name from the folder's `pyproject.toml`; the folder's own where there is none, for a plugin that is installed already.
    ///
    /// # Errors
    /// The file names no project.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let file = folder.join(Self::PROJECT);
        let name = match fs::read_to_string(&file) {
            Ok(text) => {
                let project: PyProject =
                    toml::from_str(&text).with_context(|| format!("{} names no project", file.display()))?;
                project.project.name
            }
            Err(_) => folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        };
        Ok(Self { folder: folder.to_path_buf(), name })
    }

    /// Installs the plugin, editable and without its dependencies, where `python` does not have it. `key` names the folder in the
    /// configuration.
    ///
    /// # Errors
    /// The folder holds no project, or every way fails: the text lists each with its reason.
    pub(super) fn ensure(&self, python: &Path, key: &str) -> Result<()> {
        if Probe::ask(python, &[&self.name])?.has_plugin(&self.name) {
            tracing::debug!("{} is installed for {}", self.name, python.display());
            return Ok(());
        }
        let file = self.folder.join(Self::PROJECT);
        if !file.is_file() {
            let python = python.display();
            let message = format!("{python} has no plugin `{}`, and {} does not exist", self.name, file.display());
            let hint = format!("pip install the plugin's wheel, give the folder of its sources, or {key}=null");
            return Err(Problem::new(key, message, hint).into());
        }
        tracing::info!("installing {} for {}", self.folder.display(), python.display());
        let mut attempts = Attempts { plugin: self, python, failures: Vec::new() };
        if attempts.all()? {
            return Ok(());
        }
        let list: String = attempts.failures.iter().map(|failure| format!("\n  - {failure}")).collect();
        let message = format!("{} cannot be installed for {}:{list}", self.folder.display(), python.display());
        Err(CommandError::new(message, "install it by hand, then this step is skipped").into())
    }
}

/// The ways to install, in turn.
struct Attempts<'a> {
    plugin: &'a Plugin,
    python: &'a Path,
    failures: Vec<String>,
}

impl Attempts<'_> {
    /// # Errors
    /// The interpreter does not answer.
    fn all(&mut self) -> Result<bool> {
        let python = self.python.to_path_buf();
        let python_name = python.display().to_string();
        if self.install(&python, &["-m", "pip", "install"])? {
            return Ok(true);
        }
        if self.failures.last().is_some_and(|failure| failure.contains(NO_PIP)) {
            let has_pip = self.attempt(&python, &["-m", "ensurepip", "--upgrade"], &[]);
            if has_pip && self.install(&python, &["-m", "pip", "install"])? {
                return Ok(true);
            }
        }
        for (name, arguments) in [("uv", vec!["pip", "install", "--python", &python_name]), ("pip", vec!["install"])] {
            match find_program(name) {
                Some(program) if self.install(&program, &arguments)? => return Ok(true),
                Some(_) => {}
                None => self.failures.push(format!("{name}: not on PATH")),
            }
        }
        Ok(false)
    }

    /// One way, and whether the plugin is there afterwards: `pip` of another environment also ends well.
    fn install(&mut self, program: &Path, arguments: &[&str]) -> Result<bool> {
        let folder = self.plugin.folder.display().to_string();
        if !self.attempt(program, arguments, &["--no-deps", "--no-build-isolation", "-e", &folder]) {
            return Ok(false);
        }
        let is_there = Probe::ask(self.python, &[&self.plugin.name])?.has_plugin(&self.plugin.name);
        if !is_there {
            let shown = shown(program, arguments);
            let python = self.python.display();
            self.failures.push(format!("{shown} succeeded, but {python} still cannot import {}", self.plugin.name));
        }
        Ok(is_there)
    }

    fn attempt(&mut self, program: &Path, arguments: &[&str], more: &[&str]) -> bool {
        let reason = match Command::new(program).args(arguments).args(more).output() {
            Ok(output) if output.status.success() => return true,
            Ok(output) => format!("{} ({})", last_line(&output.stderr), output.status),
            Err(error) => error.to_string(),
        };
        self.failures.push(format!("{}: {reason}", shown(program, arguments)));
        false
    }
}

fn shown(program: &Path, arguments: &[&str]) -> String {
    format!("{} {}", program.display(), arguments.join(" "))
}

fn last_line(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no message").trim().to_owned()
}
