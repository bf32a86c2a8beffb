//! The steps of a pipeline and the overrides of their command lines.

use super::{shared, stage::Input};
use hlrp_schema::{PipelineConfig, Stage, StepConfig};

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    /// Names its directory: `1_laq`.
    pub(super) name: String,
    /// The key of the configuration that describes it.
    pub(super) key: String,
    /// What it does.
    pub(super) stage: Stage,
    /// The command line, without what is handed over and where it writes.
    pub(super) overrides: Vec<String>,
    /// What it needs from the steps before it; [`check`](super::check::check) finds out.
    pub(super) inputs: Vec<Input>,
}

/// The steps in their order, as far as the pipeline's own configuration describes them; [`check`](super::check::check) completes them.
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
    let shared = shared::overrides(config, passed_on);
    let step = |(name, key, stage, step): (_, _, _, &StepConfig)| {
        let experiment = [format!("experiment={}", step.experiment)];
        let overrides = experiment.iter().chain(&shared).chain(&step.overrides).cloned().collect();
        Step { name, key, stage, overrides, inputs: Vec::new() }
    };
    single.chain(rollouts).map(step).collect()
}
