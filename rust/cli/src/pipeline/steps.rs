//! The steps of a pipeline and the words of their command lines.

use super::{
    handover::{self, Input},
    shared,
    tree::Tree,
};
use anyhow::{Context, Result};
use hlrp_config::Problem;
use hlrp_schema::{ArtifactChoice, PipelineConfig, Stage, StepConfig};
use std::path::Path;

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    /// Names its directory: `1_laq`.
    pub(super) name: String,
    /// The key of the configuration that describes it.
    key: String,
    /// What it does.
    pub(super) stage: Stage,
    /// The command line, without what is handed over and where it writes.
    pub(super) words: Vec<String>,
    /// What it takes from the steps before it.
    pub(super) inputs: Vec<Input>,
}

/// The steps in their order, as far as the pipeline's own configuration describes them; [`check`] completes them.
pub(super) fn of(config: &PipelineConfig, passed_on: &[String]) -> Vec<Step> {
    let pipeline = &config.pipeline;
    let single = [
        ("laq", Stage::Laq, &pipeline.laq),
        ("vla", Stage::Vla, &pipeline.vla),
        ("lerobot", Stage::LerobotTrain, &pipeline.lerobot),
    ];
    let single = single.into_iter().enumerate().filter_map(|(index, (name, stage, step))| {
        Some((format!("{}_{name}", index + 1), format!("pipeline.{name}"), stage, step.as_ref()?))
    });
    let rollouts = pipeline.rollouts.iter().map(|(name, step)| {
        (format!("4_rollout_{name}"), format!("pipeline.rollouts.{name}"), Stage::LerobotRollout, step)
    });
    let shared = shared::words(config, passed_on);
    let step = |(name, key, stage, step): (_, _, _, &StepConfig)| {
        let experiment = [format!("experiment={}", step.experiment)];
        let words = experiment.iter().chain(&shared).chain(&step.overrides).cloned().collect();
        Step { name, key, stage, words, inputs: Vec::new() }
    };
    single.chain(rollouts).map(step).collect()
}

/// Composes and checks the configuration of every step as it will be when the pipeline runs in `run_dir`, so that a mistake in the last
/// one does not show after hours; and sees what each wants to be given.
///
/// # Errors
/// The first mistake, with the step that has it.
pub(super) fn check(steps: &mut [Step], tree: &Tree, run_dir: &Path, artifact: ArtifactChoice) -> Result<()> {
    let mut outputs = Vec::new();
    for step in steps {
        let experiment = tree.compose(&step.words[..1]).with_context(|| step.key.clone())?;
        let stage = Stage::of(&experiment).with_context(|| step.key.clone())?;
        if stage != step.stage {
            let message = format!("an experiment of stage {}, not {}", stage.name(), step.stage.name());
            let hint = "`hlrp config list experiment` shows the experiments";
            return Err(Problem::new(format!("{}.experiment", step.key), message, hint).into());
        }
        let composed = tree.compose(&step.words).with_context(|| step.key.clone())?;
        step.inputs = handover::inputs(stage, &composed);
        let step_dir = run_dir.join(&step.name);
        let whole = tree.compose(&handover::all_words(step, &outputs, &step_dir)).with_context(|| step.key.clone())?;
        stage.check(&whole).with_context(|| step.key.clone())?;
        outputs.push((stage, handover::expected(stage, &step_dir, artifact)));
    }
    Ok(())
}
