//! What a step leaves for those after it, and the words that give it to them.

use super::{state::State, steps::Step};
use anyhow::{Result, anyhow};
use hlrp_config::schema::{ArtifactChoice, Stage};
use std::path::{Path, PathBuf};

/// Artifacts of stage 2.
const ARTIFACTS: &str = "artifacts";

/// What the finished run in `run_dir` gives to later steps.
///
/// # Errors
/// It is not there.
pub(super) fn output(stage: Stage, run_dir: &Path, artifact: ArtifactChoice) -> Result<PathBuf> {
    let missing = |what: &str| anyhow!("{} has finished without {what}", run_dir.display());
    match stage {
        Stage::Laq => {
            Some(run_dir.join("checkpoints/last")).filter(|file| file.is_file()).map(|_| run_dir.to_path_buf())
        }
        Stage::Vla => {
            let folders = [artifact, ArtifactChoice::Final].map(|choice| run_dir.join(ARTIFACTS).join(choice.folder()));
            folders.into_iter().find(|folder| folder.join("manifest.json").is_file())
        }
        Stage::LerobotTrain => crate::lerobot::newest_policy(run_dir),
        Stage::LerobotRollout => Some(run_dir.join(crate::lerobot::RESULTS)).filter(|file| file.is_file()),
        Stage::Pipeline => None,
    }
    .ok_or_else(|| missing(what(stage)))
}

/// What [`output`] will give when the step writes to `run_dir`.
pub(super) fn expected(stage: Stage, run_dir: &Path, artifact: ArtifactChoice) -> PathBuf {
    match stage {
        Stage::Vla => run_dir.join(ARTIFACTS).join(artifact.folder()),
        _ => run_dir.to_path_buf(),
    }
}

fn what(stage: Stage) -> &'static str {
    match stage {
        Stage::Laq => "a checkpoint",
        Stage::Vla => "an artifact",
        Stage::LerobotTrain => "a policy",
        Stage::LerobotRollout | Stage::Pipeline => "results",
    }
}

/// All words of a step that writes to `run_dir`.
pub(super) fn all_words(step: &Step, outputs: &[(Stage, PathBuf)], run_dir: &Path) -> Vec<String> {
    let target = format!("logging.run_dir={}", in_quotes(run_dir));
    step.words.iter().cloned().chain(words(step, outputs)).chain([target]).collect()
}

/// The words that give a step what it takes from those before it.
fn words(step: &Step, outputs: &[(Stage, PathBuf)]) -> Vec<String> {
    let from = |stage: Stage| outputs.iter().rev().find(|(of, _)| *of == stage).map(|(_, path)| path);
    let word = |key: &str, path: Option<&PathBuf>| path.map(|path| format!("{key}={}", in_quotes(path)));
    let given = match step.stage {
        Stage::Vla => vec![word("model.laq.checkpoint", from(Stage::Laq))],
        Stage::LerobotTrain => vec![
            word("++lerobot.policy.stage2_artifact", from(Stage::Vla).filter(|_| step.takes_artifact)),
            word("++lerobot.policy.laq_checkpoint_path", from(Stage::Laq).filter(|_| step.takes_teacher)),
        ],
        Stage::LerobotRollout => vec![word("lerobot_eval.policy_path", from(Stage::LerobotTrain))],
        Stage::Laq | Stage::Pipeline => Vec::new(),
    };
    given.into_iter().flatten().collect()
}

/// A path as a value of the configuration's grammar.
fn in_quotes(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = text.chars().all(|char| char.is_ascii_alphanumeric() || "/._-".contains(char));
    if is_plain { text } else { format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'")) }
}

/// What the steps that are done give, in their order.
pub(super) fn outputs(steps: &[Step], state: &State) -> Vec<(Stage, PathBuf)> {
    let both = steps.iter().zip(&state.steps);
    both.filter_map(|(step, state)| Some((step.stage, state.output.clone()?))).collect()
}
