//! What a submission and a reproduction ask about the steps of a pipeline.

use super::{
    check, shared,
    stage::Contract,
    state::{FILE_NAME, State, Status, StepState},
    steps,
    tree::Tree,
};
use anyhow::Result;
use hlrp_config::Composed;
use hlrp_schema::{PipelineConfig, Stage, StageConfig};
use hlrp_track::TrackError;
use std::path::{Path, PathBuf};

/// What holds before a step.
pub(crate) enum Before {
    /// Every earlier step is done.
    Done,
    /// This one has failed.
    Failed(String),
    /// This one is not done.
    Missing(String),
}

/// The steps of a pipeline in their order, each with its own configuration; all are checked.
///
/// # Errors
/// The first invalid configuration, with the step that has it.
pub(crate) fn composed_steps(
    composed: &Composed,
    tree: &Path,
    config_name: &str,
    run_dir: &Path,
) -> Result<Vec<(String, Composed)>> {
    let config: PipelineConfig = PipelineConfig::of_run(composed)?;
    let tree = Tree::at(tree, config_name);
    let passed_on = shared::passed_on(composed, None);
    let mut steps = steps::of(&config, &passed_on);
    let configurations = check::check(&mut steps, composed, &tree, run_dir, config.pipeline.artifact)?;
    Ok(steps.into_iter().map(|step| step.name).zip(configurations).collect())
}

/// Whether a step of the pipeline in `run_dir` is done. A state that cannot be read is not.
pub(crate) fn is_done(run_dir: &Path, step: &str) -> bool {
    State::read(run_dir).ok().flatten().is_some_and(|state| state.status(step) == Some(Status::Done))
}

/// What holds before a step of the pipeline in `run_dir`; `after` is the step before it.
///
/// # Errors
/// The state is damaged.
pub(crate) fn before(run_dir: &Path, step: &str, after: Option<&str>) -> Result<Before> {
    let Some(state) = State::read(run_dir)? else {
        return Ok(after.map_or(Before::Done, |step| Before::Missing(step.to_owned())));
    };
    let earlier = state.steps.iter().take_while(|earlier| earlier.name != step);
    Ok(match earlier.into_iter().find(|earlier| earlier.status != Status::Done) {
        None => Before::Done,
        Some(StepState { name, status: Status::Failed, .. }) => Before::Failed(name.clone()),
        Some(StepState { name, .. }) => Before::Missing(name.clone()),
    })
}

/// The steps of the pipeline in `run_dir` in their order, each with the directory of its run, if it has one.
///
/// # Errors
/// No pipeline has run there, or its state is damaged.
pub(crate) fn run_dirs(run_dir: &Path) -> Result<Vec<(String, Option<PathBuf>)>> {
    let missing = || TrackError::NotARun { path: run_dir.to_path_buf(), missing: FILE_NAME.to_owned() };
    let steps = State::read(run_dir)?.ok_or_else(missing)?.steps;
    // A pipeline may have been moved since; its steps are in its folder.
    let own = |path: PathBuf| path.file_name().map_or_else(|| path.clone(), |name| run_dir.join(name));
    Ok(steps.into_iter().map(|step| (step.name, step.run_dir.map(own))).collect())
}

/// Whether a run of this stage left something to continue from.
pub(crate) fn can_continue(stage: Stage, run_dir: &Path) -> bool {
    Contract::of(Some(stage)).can_continue(run_dir)
}
