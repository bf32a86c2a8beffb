//! Checking every step before the first one runs.

use super::{
    handover::{Outputs, arguments},
    stage::Contract,
    steps::{Handover, Step, Work},
    tree::Tree,
};
use anyhow::{Context, Result};
use hlrp_config::{Composed, Problem};
use hlrp_schema::{ArtifactChoice, Stage};
use std::path::Path;

/// Composes and checks the configuration of every step as it will be when the pipeline runs in `run_dir`, so that an error in the last
/// one does not show after hours; and finds out what each needs from those before it. Returns the configurations; that of a step that runs no
/// experiment is `own`, the pipeline's.
///
/// # Errors
/// The first invalid configuration, with the step that has it.
pub(super) fn check(
    steps: &mut [Step],
    own: &Composed,
    tree: &Tree,
    run_dir: &Path,
    artifact: ArtifactChoice,
) -> Result<Vec<Composed>> {
    let mut outputs = Outputs::new();
    let mut configurations = Vec::new();
    for index in 0..steps.len() {
        let (before, rest) = steps.split_at_mut(index);
        let step = &mut rest[0];
        let key = step.key.clone();
        complete(step, before, tree).with_context(|| key.clone())?;
        let step_dir = run_dir.join(&step.name);
        let whole = match step.stage() {
            None => own.clone(),
            Some(stage) => {
                let whole = tree.compose(&arguments(step, &outputs, &step_dir)).with_context(|| key.clone())?;
                stage.check(&whole).with_context(|| key.clone())?;
                whole
            }
        };
        outputs.insert(step.name.clone(), Contract::of(step.stage()).expected_output(&step_dir, artifact));
        configurations.push(whole);
    }
    Ok(configurations)
}

/// Finds the stage of a step, and what it needs from the newest step of another stage.
fn complete(step: &mut Step, before: &[Step], tree: &Tree) -> Result<()> {
    let Work::Run { stage, overrides } = &mut step.work else { return Ok(()) };
    let found = Stage::of(&tree.compose(&overrides[..1])?)?;
    if let Some(stage) = stage.filter(|stage| *stage != found) {
        let message = format!("an experiment of stage {}, not {}", found.name(), stage.name());
        let hint = "`hlrp config list experiment` shows the experiments";
        return Err(Problem::new(format!("{}.experiment", step.key), message, hint).into());
    }
    if stage.is_none() {
        // A step of a study names its inputs.
        *stage = Some(found);
        return Ok(());
    }
    let needed = Contract::of(Some(found)).needs(&tree.compose(overrides)?);
    step.inputs = needed
        .into_iter()
        .filter_map(|input| {
            let from = before.iter().rev().find(|step| step.stage() == Some(input.from))?;
            Some(Handover { key: input.key.to_owned(), from: from.name.clone() })
        })
        .collect();
    Ok(())
}
