//! How a step is told what those before it handed over.

use super::{
    state::State,
    steps::{Handover, Step, Work, name_of},
};
use hlrp_config::write_path;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What earlier steps handed over, by their names.
pub(super) type Outputs = BTreeMap<String, PathBuf>;

/// What the steps that are done handed over.
pub(super) fn outputs(state: &State) -> Outputs {
    state.steps.iter().filter_map(|step| Some((step.name.clone(), step.output.clone()?))).collect()
}

/// All arguments of a step that writes to `run_dir`, without its command.
pub(super) fn arguments(step: &Step, outputs: &Outputs, run_dir: &Path) -> Vec<String> {
    match &step.work {
        Work::Run { overrides, .. } => {
            let target = format!("logging.run_dir={}", write_path(run_dir));
            let inputs = step.inputs.iter().filter_map(|input| provided(input, outputs));
            overrides.iter().cloned().chain(inputs).chain([target]).collect()
        }
        Work::Label { dataset, source } => {
            let checkpoint = step.inputs.iter().filter_map(|input| outputs.get(&input.from)).map(PathBuf::as_path);
            let paths = checkpoint.chain([dataset.as_path()]).map(|path| path.display().to_string());
            let options = ["--out".to_owned(), run_dir.display().to_string(), "--source".to_owned()];
            paths.chain(options).chain([name_of(*source)]).collect()
        }
    }
}

/// The override that provides an input: with `++` where the key is a field of a policy, which no file declares.
fn provided(input: &Handover, outputs: &Outputs) -> Option<String> {
    let path = outputs.get(&input.from)?;
    let plus = if input.key.starts_with("lerobot.policy.") { "++" } else { "" };
    Some(format!("{plus}{}={}", input.key, write_path(path)))
}
