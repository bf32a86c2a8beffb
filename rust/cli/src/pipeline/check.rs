//! Checking every step before the first one runs.

use super::{
    handover::{Outputs, all_overrides},
    stage::Contract,
    steps::Step,
    tree::Tree,
};
use anyhow::{Context, Result};
use hlrp_config::{Composed, Problem};
use hlrp_schema::{ArtifactChoice, Stage};
use std::path::Path;

/// Composes and checks the configuration of every step as it will be when the pipeline runs in `run_dir`, so that an error in the last
/// one does not show after hours; and finds out what each needs from those before it. Returns the configurations.
///
/// # Errors
/// The first invalid configuration, with the step that has it.
pub(super) fn check(
    steps: &mut [Step],
    tree: &Tree,
    run_dir: &Path,
    artifact: ArtifactChoice,
) -> Result<Vec<Composed>> {
    let mut outputs = Outputs::new();
    let mut configurations = Vec::new();
    for step in steps {
        let of_step = || step.key.clone();
        let experiment = tree.compose(&step.overrides[..1]).with_context(of_step)?;
        let stage = Stage::of(&experiment).with_context(of_step)?;
        if stage != step.stage {
            let message = format!("an experiment of stage {}, not {}", stage.name(), step.stage.name());
            let hint = "`hlrp config list experiment` shows the experiments";
            return Err(Problem::new(format!("{}.experiment", step.key), message, hint).into());
        }
        let contract = Contract::of(stage);
        let inputs = contract.needs(&tree.compose(&step.overrides).with_context(of_step)?);
        step.inputs = inputs;
        let of_step = || step.key.clone();
        let step_dir = run_dir.join(&step.name);
        let whole = tree.compose(&all_overrides(step, &outputs, &step_dir)).with_context(of_step)?;
        stage.check(&whole).with_context(of_step)?;
        outputs.push((stage, contract.expected_output(&step_dir, artifact)));
        configurations.push(whole);
    }
    Ok(configurations)
}
