//! Which folders are runs.

use super::record::Run;
use crate::error::CommandError;
use anyhow::{Context, Result};
use hlrp_config::{Problem, compose, find_root};
use hlrp_schema::{PRIMARY, PROJECT};
use hlrp_track::run::Manifest;
use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Folders between a given one and a run: a sweep, its run, the steps of a pipeline.
const MAX_DEPTH: usize = 4;
/// Folders of a run that contain no other run.
const CONTENTS: [&str; 6] = ["checkpoints", "artifacts", "plots", "validation", "lerobot", "wandb"];

/// The runs that cannot be read: a command goes on without them, warns, and ends with exit code 1.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    errors: Vec<anyhow::Error>,
}

impl LeftOut {
    /// What was read of a run; none if that failed.
    pub(super) fn keep<T>(&mut self, read: Result<T>) -> Option<T> {
        read.map_err(|error| self.errors.push(error)).ok()
    }

    /// Warns of each run that is left out beside the `num_read` others, and returns the exit code of the command.
    ///
    /// # Errors
    /// The first of these errors, where no run could be read.
    pub(super) fn report(self, num_read: usize) -> Result<ExitCode> {
        for error in &self.errors {
            if num_read > 0 {
                tracing::warn!(
                    "{error:#}; this run is left out\nhint: restore the file from a copy, or move the run's folder away"
                );
            }
        }
        let exit_code = ExitCode::from(u8::from(!self.errors.is_empty()));
        match self.errors.into_iter().next() {
            Some(error) if num_read == 0 => Err(error),
            _ => Ok(exit_code),
        }
    }
}

/// The runs in `dirs` and below, each once; without a folder those in `paths.runs_dir` of the configuration. Those with a damaged `run.json`
/// are in `left_out`.
///
/// # Errors
/// A folder that does not exist or cannot be listed.
pub(super) fn runs(dirs: &[PathBuf], left_out: &mut LeftOut) -> Result<Vec<Run>> {
    let default;
    let dirs = match dirs {
        [] => {
            default = [default_dir()?];
            &default[..]
        }
        given => given,
    };
    let mut found = Vec::new();
    for dir in dirs {
        let mut below = Vec::new();
        collect(dir, 0, &mut below)?;
        below.sort();
        for path in below {
            let name = match path.strip_prefix(dir) {
                Ok(inner) if !inner.as_os_str().is_empty() && dirs.len() == 1 => inner.display().to_string(),
                _ => base_name(&path),
            };
            found.extend(left_out.keep(Run::open(&path, name)));
        }
    }
    let mut seen = Vec::new();
    found.retain(|run: &Run| {
        let path = run.path.canonicalize().unwrap_or_else(|_| run.path.clone());
        let is_new = !seen.contains(&path);
        seen.push(path);
        is_new
    });
    let names: Vec<String> = found.iter().map(|run| run.name.clone()).collect();
    for run in &mut found {
        if names.iter().filter(|name| **name == run.name).count() > 1 {
            run.name = run.path.display().to_string();
        }
    }
    Ok(found)
}

/// As [`runs`], for a command that needs one or more.
///
/// # Errors
/// As [`runs`], and when there is none.
pub(super) fn some_runs(dirs: &[PathBuf], left_out: &mut LeftOut) -> Result<Vec<Run>> {
    let found = runs(dirs, left_out)?;
    if found.is_empty() && left_out.errors.is_empty() {
        let place = dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", ");
        let message = if dirs.is_empty() { "there is no run yet".to_owned() } else { format!("no run in {place}") };
        return Err(
            CommandError::new(message, "a run is a folder with run.json; name one, or a folder above it").into()
        );
    }
    Ok(found)
}

/// The run in `path` itself.
///
/// # Errors
/// It is not a run, or its `run.json` is damaged.
pub(crate) fn one_run(path: &Path) -> Result<Run> {
    Run::open(path, base_name(path))
}

/// `paths.runs_dir` of the configuration in use.
fn default_dir() -> Result<PathBuf> {
    let root = find_root(None, PROJECT.config_dir_variable)?;
    let composed = compose(&PROJECT, &root, PRIMARY, &[])?;
    let text = composed.tree().get("paths.runs_dir").and_then(|node| node.as_str()).unwrap_or("runs");
    Ok(PathBuf::from(text))
}

/// The last name of a path, also of `.`.
fn base_name(path: &Path) -> String {
    let name = |path: &Path| Some(path.file_name()?.to_string_lossy().into_owned());
    name(path).or_else(|| name(&path.canonicalize().ok()?)).unwrap_or_else(|| path.display().to_string())
}

fn collect(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        // A folder that this user may not read, far below the given one, is not what was asked for.
        Err(error) if depth > 0 && error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let hint = "give a run directory, or a folder of runs; by default it is paths.runs_dir";
            return Err(Problem::new("DIR", format!("there is no folder {}", dir.display()), hint).into());
        }
        entries => entries.with_context(|| format!("cannot list {}", dir.display()))?,
    };
    let is_run = Manifest::path(dir).is_some();
    if is_run {
        found.push(dir.to_path_buf());
    }
    if depth == MAX_DEPTH {
        return Ok(());
    }
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", dir.display()))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_content = name.starts_with('.') || (is_run && CONTENTS.contains(&name.as_ref()));
        if !is_content && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), depth + 1, found)?;
        }
    }
    Ok(())
}
