//! What each stage needs from those before it, what it hands over, and what it leaves to continue from: one entry for each stage.

use crate::lerobot;
use anyhow::{Result, anyhow};
use hlrp_config::Composed;
use hlrp_schema::{
    ArtifactChoice, Stage,
    plugin::{ARTIFACT_FILES, PluginPolicy},
    policy::label_columns::MANIFEST,
};
use std::path::{Path, PathBuf};

/// Artifacts of stage 2 in its run directory.
const ARTIFACTS: &str = "artifacts";
/// Points to the newest checkpoint of stages 1 and 2.
const LAST_CHECKPOINT: &str = "checkpoints/last";

/// What a pipeline knows of a stage.
#[derive(Debug)]
pub(super) struct Contract {
    /// Heading of its part of the summary.
    pub(super) title: &'static str,
    /// The keys that may name what an earlier stage handed over, each with that stage.
    inputs: &'static [Input],
    /// Which of these keys its configuration uses.
    uses: fn(&Composed, &Input) -> bool,
    /// What it hands over, in words.
    output_name: &'static str,
    /// What a finished run hands over; nothing where it is missing.
    output: fn(&Path, ArtifactChoice) -> Option<PathBuf>,
    /// What a run that is still to come will hand over.
    expected: fn(&Path, ArtifactChoice) -> PathBuf,
    /// Whether a run that was stopped can continue.
    can_continue: fn(&Path) -> bool,
}

/// Something that a stage needs from an earlier one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Input {
    /// The stage that hands it over.
    pub(super) from: Stage,
    /// The key that names it.
    pub(super) key: &'static str,
}

static LAQ: Contract = Contract {
    title: "Stage 1: latent actions from frame pairs",
    inputs: &[],
    uses: |_, _| false,
    output_name: "a checkpoint",
    output: |run_dir, _| run_dir.join(LAST_CHECKPOINT).is_file().then(|| run_dir.to_path_buf()),
    expected: the_run_itself,
    can_continue: |run_dir| run_dir.join(LAST_CHECKPOINT).is_file(),
};

static LAQ_ANALYSIS: Contract = Contract {
    title: "Stage 1: what the codes say",
    inputs: &[Input { from: Stage::Laq, key: "checkpoint" }],
    uses: |_, _| true,
    output_name: "a report",
    output: |run_dir, _| Some(run_dir.join("report.html")).filter(|file| file.is_file()),
    expected: the_run_itself,
    can_continue: |_| false,
};

static VLA: Contract = Contract {
    title: "Stage 2: a policy that predicts latent and real actions",
    inputs: &[Input { from: Stage::Laq, key: "policy.teacher.checkpoint" }],
    uses: |_, _| true,
    output_name: "an artifact",
    output: |run_dir, choice| {
        let folders = [choice, ArtifactChoice::Final].map(|choice| artifact(run_dir, choice));
        folders.into_iter().find(|folder| ARTIFACT_FILES.iter().any(|file| folder.join(file).is_file()))
    },
    expected: artifact,
    can_continue: |run_dir| run_dir.join(LAST_CHECKPOINT).is_file(),
};

static LEROBOT_TRAIN: Contract = Contract {
    title: "Stage 3: fine-tuning with LeRobot",
    inputs: &[
        Input { from: Stage::Vla, key: "lerobot.policy.stage2_artifact" },
        Input { from: Stage::Laq, key: "lerobot.policy.laq_checkpoint_path" },
    ],
    uses: uses_of_lerobot,
    output_name: "a policy",
    output: |run_dir, _| lerobot::newest_policy(run_dir),
    expected: the_run_itself,
    can_continue: |run_dir| lerobot::newest_policy(run_dir).is_some(),
};

static LEROBOT_ROLLOUT: Contract = Contract {
    title: "Rollouts",
    inputs: &[Input { from: Stage::LerobotTrain, key: "lerobot_eval.policy_path" }],
    uses: |_, _| true,
    output_name: "results",
    output: |run_dir, _| Some(run_dir.join(lerobot::RESULTS)).filter(|file| file.is_file()),
    expected: the_run_itself,
    can_continue: |_| false,
};

static LABEL: Contract = Contract {
    title: "Labels",
    inputs: &[],
    uses: |_, _| false,
    output_name: "labels",
    output: |run_dir, _| run_dir.join(MANIFEST).is_file().then(|| run_dir.to_path_buf()),
    expected: the_run_itself,
    can_continue: |_| false,
};

static PIPELINE: Contract = Contract {
    title: "Pipeline",
    inputs: &[],
    uses: |_, _| false,
    output_name: "results",
    output: |_, _| None,
    expected: the_run_itself,
    can_continue: |_| false,
};

impl Contract {
    /// The entry of a stage, or of the labels that are between stages 1 and 2.
    pub(super) fn of(stage: Option<Stage>) -> &'static Self {
        match stage {
            Some(Stage::Laq) => &LAQ,
            None => &LABEL,
            Some(Stage::LaqAnalysis) => &LAQ_ANALYSIS,
            Some(Stage::Vla) => &VLA,
            Some(Stage::LerobotTrain) => &LEROBOT_TRAIN,
            Some(Stage::LerobotRollout) => &LEROBOT_ROLLOUT,
            Some(Stage::Pipeline) => &PIPELINE,
        }
    }

    /// What a step of the stage needs from those before it. A key that an override of its own sets or removes is left as it is.
    pub(super) fn needs(&self, composed: &Composed) -> Vec<Input> {
        let is_needed = |input: &&Input| (self.uses)(composed, input) && composed.changed_by(input.key).is_none();
        self.inputs.iter().filter(is_needed).copied().collect()
    }

    /// What the finished run in `run_dir` hands over.
    ///
    /// # Errors
    /// It is missing.
    pub(super) fn output(&self, run_dir: &Path, artifact: ArtifactChoice) -> Result<PathBuf> {
        let missing = || anyhow!("{} has finished without {}", run_dir.display(), self.output_name);
        (self.output)(run_dir, artifact).ok_or_else(missing)
    }

    /// What [`output`](Self::output) will return when the step writes to `run_dir`.
    pub(super) fn expected_output(&self, run_dir: &Path, artifact: ArtifactChoice) -> PathBuf {
        (self.expected)(run_dir, artifact)
    }

    /// Whether the run in `run_dir` left a checkpoint to continue from.
    pub(super) fn can_continue(&self, run_dir: &Path) -> bool {
        (self.can_continue)(run_dir)
    }
}

fn the_run_itself(run_dir: &Path, _: ArtifactChoice) -> PathBuf {
    run_dir.to_path_buf()
}

fn artifact(run_dir: &Path, choice: ArtifactChoice) -> PathBuf {
    run_dir.join(ARTIFACTS).join(choice.folder())
}

/// A policy of stage 3 needs an artifact if it starts from one, and a checkpoint of stage 1 if it learns latent actions.
fn uses_of_lerobot(composed: &Composed, input: &Input) -> bool {
    let text = |key: &str| composed.tree().get(key).map(|node| node.summary()).filter(|text| text != "null");
    let [policy_type, init_mode, training_mode, label_prefix] = [
        "lerobot.policy_type",
        "lerobot.policy.init_mode",
        "lerobot.policy.stage3_training_mode",
        "lerobot.policy.latent_label_prefix",
    ]
    .map(text);
    let policy = PluginPolicy {
        policy_type: policy_type.as_deref(),
        init_mode: init_mode.as_deref(),
        training_mode: training_mode.as_deref(),
        label_prefix: label_prefix.as_deref(),
    };
    match input.from {
        Stage::Vla => policy.needs_artifact(),
        _ => policy.needs_teacher(),
    }
}
