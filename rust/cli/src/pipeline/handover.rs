//! How a step is told what those before it handed over.

use super::{stage::Input, state::State, steps::Step};
use hlrp_config::write_path;
use hlrp_schema::Stage;
use std::path::{Path, PathBuf};

/// What earlier steps handed over, in their order.
pub(super) type Outputs = Vec<(Stage, PathBuf)>;

/// What the steps that are done handed over.
pub(super) fn outputs(steps: &[Step], state: &State) -> Outputs {
    let both = steps.iter().zip(&state.steps);
    both.filter_map(|(step, state)| Some((step.stage, state.output.clone()?))).collect()
}

/// All overrides of a step that writes to `run_dir`.
pub(super) fn all_overrides(step: &Step, outputs: &Outputs, run_dir: &Path) -> Vec<String> {
    let target = format!("logging.run_dir={}", write_path(run_dir));
    let inputs = step.inputs.iter().filter_map(|input| provided(input, outputs));
    step.overrides.iter().cloned().chain(inputs).chain([target]).collect()
}

/// The override that provides an input: with `++` where the key is a field of a policy, which no file declares.
fn provided(input: &Input, outputs: &Outputs) -> Option<String> {
    let (_, path) = outputs.iter().rev().find(|(stage, _)| *stage == input.from)?;
    let plus = if input.key.starts_with("lerobot.policy.") { "++" } else { "" };
    Some(format!("{plus}{}={}", input.key, write_path(path)))
}
