//! The command that runs a run again.

use crate::{
    child::{self, Invocation},
    runs::Run,
};
use anyhow::{Context, Result};
use hlrp_config::{Composed, secret::REDACTED, write_path};
use hlrp_schema::Stage;
use hlrp_track::{fs::write_atomic, signals::StopSignals};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// The key that names the directory of a run.
const RUN_DIR: &str = "logging.run_dir";

/// A run that is about to be run again.
pub(super) struct Again {
    pub(super) stage: Stage,
    pub(super) config: Composed,
    /// Directory of the new run; absolute.
    pub(super) run_dir: PathBuf,
    /// The folder that relative paths of the configuration start from.
    pub(super) working_dir: PathBuf,
    invocation: Invocation,
    /// The configuration as a tree of one file.
    _tree: TempDir,
}

impl Again {
    /// `run` into `run_dir`, which is absolute.
    ///
    /// # Errors
    /// The run's configuration is damaged.
    pub(super) fn of(run: &Run, run_dir: PathBuf) -> Result<Self> {
        let config = run.config()?;
        let stage = Stage::of(&config)?;
        let recorded = run.manifest.sessions.first().and_then(|session| session.working_dir.clone());
        let working_dir = match recorded.filter(|folder| folder.is_dir()) {
            Some(folder) => folder,
            None => std::env::current_dir().context("cannot find the current folder")?,
        };
        let tree = tempfile::tempdir().context("cannot create a temporary folder")?;
        write_atomic(&tree.path().join("config.yaml"), config.to_yaml())?;
        let mut arguments: Vec<String> = vec![stage.command().into(), "--config-dir".into()];
        arguments.push(tree.path().display().to_string());
        arguments.extend(overrides(run, &config, &run_dir));
        let program = std::env::current_exe().context("cannot find the path of hlrp")?;
        let invocation = Invocation { program, arguments, env: BTreeMap::new(), knows_usr1: true };
        Ok(Self { stage, config, run_dir, working_dir, invocation, _tree: tree })
    }

    /// Runs it to its end and returns its exit code. Signals are passed on.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn run(&self, signals: &StopSignals) -> Result<u8> {
        std::env::set_current_dir(&self.working_dir)
            .with_context(|| format!("cannot change to {}", self.working_dir.display()))?;
        Ok(child::run(&self.invocation, signals, None)?.code)
    }

    /// The command as a shell reads it.
    pub(super) fn to_shell(&self) -> String {
        self.invocation.to_shell()
    }

    /// Settings whose values were secrets, which no run records.
    pub(super) fn secrets(&self) -> Vec<String> {
        let values = self.config.tree().values("").into_iter();
        values.filter(|(_, node)| node.summary().contains(REDACTED)).map(|(key, _)| key).collect()
    }
}

/// What differs from then: where the run writes. The number of threads is fixed, because it decides the bits, and nothing is logged to a
/// service a second time.
fn overrides(run: &Run, config: &Composed, run_dir: &Path) -> Vec<String> {
    let values = config.tree().values("");
    let former = config.tree().get(RUN_DIR).and_then(|node| node.as_str()).map(PathBuf::from).unwrap_or_default();
    let moved = values.iter().filter_map(|(key, node)| {
        let inside = Path::new(node.as_str()?).strip_prefix(&former).ok().filter(|_| !former.as_os_str().is_empty())?;
        let place = if inside.as_os_str().is_empty() { run_dir.to_path_buf() } else { run_dir.join(inside) };
        Some(format!("{key}={}", write_path(&place)))
    });
    let mut overrides: Vec<String> = moved.collect();
    if let Some(session) = run.manifest.sessions.first()
        && config.tree().get("num_threads").is_some()
    {
        overrides.push(format!("num_threads={}", session.num_threads));
    }
    for key in ["logging.use_wandb", "lerobot.wandb_enable"] {
        if config.tree().get(key).is_some() {
            overrides.push(format!("{key}=false"));
        }
    }
    overrides
}
