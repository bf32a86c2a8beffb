//! What a step leaves for those after it, and the words that give it to them.

use super::{state::State, steps::Step};
use anyhow::{Result, anyhow};
use hlrp_config::{Composed, path_to_word};
use hlrp_schema::{
    ArtifactChoice, Stage,
    plugin::{ARTIFACT_FILES, PluginPolicy},
};
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
            folders.into_iter().find(|folder| ARTIFACT_FILES.iter().any(|file| folder.join(file).is_file()))
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
    let target = format!("logging.run_dir={}", path_to_word(run_dir));
    step.words.iter().cloned().chain(words(step, outputs)).chain([target]).collect()
}

/// Something that a step takes from one before it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Input {
    /// The stage that gives it.
    from: Stage,
    /// The key that names it.
    key: &'static str,
}

/// What a step of `stage` takes from those before it. A key that a word of its own sets or removes is left as it is.
pub(super) fn inputs(stage: Stage, composed: &Composed) -> Vec<Input> {
    let text = |key: &str| composed.tree().get(key).map(|node| node.summary()).filter(|text| text != "null");
    let possible = match stage {
        Stage::Vla => vec![(Stage::Laq, "policy.teacher.checkpoint", true)],
        Stage::LerobotTrain => {
            let [policy_type, init_mode, training_mode] =
                ["lerobot.policy_type", "lerobot.policy.init_mode", "lerobot.policy.stage3_training_mode"].map(text);
            let policy = PluginPolicy {
                policy_type: policy_type.as_deref(),
                init_mode: init_mode.as_deref(),
                training_mode: training_mode.as_deref(),
            };
            vec![
                (Stage::Vla, "lerobot.policy.stage2_artifact", policy.needs_artifact()),
                (Stage::Laq, "lerobot.policy.laq_checkpoint_path", policy.needs_teacher()),
            ]
        }
        Stage::LerobotRollout => vec![(Stage::LerobotTrain, "lerobot_eval.policy_path", true)],
        Stage::Laq | Stage::Pipeline => Vec::new(),
    };
    let taken = possible.into_iter().filter(|(_, key, is_wanted)| *is_wanted && composed.changed_by(key).is_none());
    taken.map(|(from, key, _)| Input { from, key }).collect()
}

/// The words that give a step what it takes: `++` because fields of a policy are declared nowhere.
fn words(step: &Step, outputs: &[(Stage, PathBuf)]) -> Vec<String> {
    let given = |stage: Stage| outputs.iter().rev().find(|(of, _)| *of == stage).map(|(_, path)| path);
    let word = |input: &Input| {
        let plus = if input.key.starts_with("lerobot.policy.") { "++" } else { "" };
        Some(format!("{plus}{}={}", input.key, path_to_word(given(input.from)?)))
    };
    step.inputs.iter().filter_map(word).collect()
}

/// What the steps that are done give, in their order.
pub(super) fn outputs(steps: &[Step], state: &State) -> Vec<(Stage, PathBuf)> {
    let both = steps.iter().zip(&state.steps);
    both.filter_map(|(step, state)| Some((step.stage, state.output.clone()?))).collect()
}
