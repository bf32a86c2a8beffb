//! `pipeline.json`: which steps are done, where each one writes, and how long it took.

use super::{steps::Step, tree::Tree};
use anyhow::{Context, Result, anyhow};
use hlrp_config::{Problem, secret::redact_arguments};
use hlrp_track::fs::write_json;
use serde::{Deserialize, Serialize};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Name of the file in the directory of a pipeline.
pub(super) const FILE_NAME: &str = "pipeline.json";
const FORMAT: u32 = 1;

/// The whole file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    format: u32,
    /// What the steps are composed from.
    pub(super) tree: Tree,
    /// Overrides of every step that [`shared::passed_on`](super::shared::passed_on) found.
    pub(super) passed_on: Vec<String>,
    /// In the order in which they run.
    pub(super) steps: Vec<StepState>,
}

/// One step.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StepState {
    pub(super) name: String,
    /// Its progress.
    pub(super) status: Status,
    /// The overrides of its configuration, without what is handed over and without secrets.
    #[serde(rename = "words")]
    overrides: Vec<String>,
    /// Its run directory, once it has started.
    pub(super) run_dir: Option<PathBuf>,
    /// What it hands over to the steps after it, once it is done.
    pub(super) output: Option<PathBuf>,
    /// Seconds in all its sessions.
    pub(super) seconds: f64,
}

/// Progress of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    /// Not started.
    Waiting,
    /// Started; when nothing runs, a kill ended it.
    Running,
    /// By a signal.
    Interrupted,
    /// By an error.
    Failed,
    /// With everything that the next steps need.
    Done,
}

impl State {
    /// Whether a pipeline has run in `run_dir`.
    pub(super) fn exists(run_dir: &Path) -> bool {
        run_dir.join(FILE_NAME).is_file()
    }

    /// What earlier runs in `run_dir` have done; nothing where there was none.
    ///
    /// # Errors
    /// The file is damaged.
    pub(super) fn read(run_dir: &Path) -> Result<Option<Self>> {
        if !Self::exists(run_dir) {
            return Ok(None);
        }
        let path = run_dir.join(FILE_NAME);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let former: Self = serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?;
        if former.format != FORMAT {
            return Err(anyhow!("{} has format {}, not {FORMAT}", path.display(), former.format));
        }
        Ok(Some(former))
    }

    /// How far a step has come; none if there is no such step.
    pub(super) fn status(&self, name: &str) -> Option<Status> {
        self.steps.iter().find(|step| step.name == name).map(|step| step.status)
    }

    /// The state of `steps`, which are composed from `tree` and share `passed_on`, after `former`; those that have started must be as
    /// they were.
    ///
    /// # Errors
    /// One is not.
    pub(super) fn of(
        former: Option<Self>,
        steps: &[Step],
        run_dir: &Path,
        tree: Tree,
        passed_on: Vec<String>,
    ) -> Result<Self> {
        let mut former = former.map(|state| state.steps).unwrap_or_default();
        let continued = steps.iter().map(|step| {
            let Some(index) = former.iter().position(|state| state.name == step.name) else {
                return Ok(StepState::new(step));
            };
            let state = former.swap_remove(index);
            if state.status == Status::Waiting {
                return Ok(StepState::new(step));
            }
            match difference(&state.overrides, &redact_arguments(step.settings.clone())) {
                None => Ok(state),
                Some(other) => {
                    let message =
                        format!("{} has run with other settings in {}: {other}", step.name, run_dir.display());
                    let hint = "choose another directory, or leave that step as it was";
                    Err(Problem::new("logging.run_dir", message, hint).into())
                }
            }
        });
        let steps = continued.collect::<Result<_>>()?;
        Ok(Self { format: FORMAT, tree, passed_on, steps })
    }

    /// Writes the file.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn write(&self, run_dir: &Path) -> Result<()> {
        Ok(write_json(&run_dir.join(FILE_NAME), self)?)
    }
}

impl StepState {
    fn new(step: &Step) -> Self {
        Self {
            name: step.name.clone(),
            status: Status::Waiting,
            overrides: redact_arguments(step.settings.clone()),
            run_dir: None,
            output: None,
            seconds: 0.0,
        }
    }
}

/// The first override that only one of the two lists has.
fn difference<'a>(former: &'a [String], now: &'a [String]) -> Option<&'a str> {
    let alone = |left: &'a [String], right: &[String]| left.iter().find(|text| !right.contains(text));
    alone(now, former).or_else(|| alone(former, now)).map(String::as_str)
}
