//! The tree of `hlrp pipeline`: which experiments run in turn.

use crate::cluster::ClusterConfig;
use crate::run::{ExperimentConfig, LoggingConfig, PathsConfig, Precision, SweepConfig};
use hlrp_config::{Check, Problem, word_key};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything that `hlrp pipeline` reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipelineConfig {
    /// Seed of every step.
    pub seed: u64,
    /// Number format of every step, where the pipeline's experiment or a word sets it; else each has its own.
    pub precision: Precision,
    /// Device of every step.
    pub device: String,
    /// CPU threads of every step; all cores when null.
    pub num_threads: Option<usize>,
    /// Name of the run.
    pub experiment: ExperimentConfig,
    /// Where things are stored.
    pub paths: PathsConfig,
    /// What is written.
    pub logging: LoggingConfig,
    /// Where the run computes, and where it may write.
    pub cluster: ClusterConfig,
    /// Several runs of the experiment.
    pub sweep: SweepConfig,
    /// The steps.
    pub pipeline: StepsConfig,
}

/// Section `pipeline`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepsConfig {
    /// Stage 1; null leaves it out.
    pub laq: Option<StepConfig>,
    /// Stage 2; null leaves it out.
    pub vla: Option<StepConfig>,
    /// Stage 3; null leaves it out.
    pub lerobot: Option<StepConfig>,
    /// Evaluations of the policy by name, in alphabetical order.
    pub rollouts: BTreeMap<String, StepConfig>,
    /// Which artifact of stage 2 goes on.
    pub artifact: ArtifactChoice,
}

/// One step: an experiment of the tree and what is changed in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepConfig {
    /// An option of the group `experiment`.
    pub experiment: String,
    /// Overrides, as on a command line.
    pub overrides: Vec<String>,
}

/// An artifact of stage 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArtifactChoice {
    /// Of the best validation score; of the end where there was no validation.
    Best,
    /// Of the end of the training.
    Final,
}

impl ArtifactChoice {
    /// Name of its folder in `<run>/artifacts`.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Best => "best",
            Self::Final => "final",
        }
    }
}

impl Check for PipelineConfig {
    fn check(&self) -> Result<(), Problem> {
        if self.logging.use_wandb {
            let message = "stages 1 and 2 log to no service";
            let hint = "set it to false; for stage 3 put logging.use_wandb=true and lerobot.wandb_enable=true into \
                        pipeline.lerobot.overrides";
            return Err(Problem::new("logging.use_wandb", message, hint));
        }
        let steps = &self.pipeline;
        let none = steps.laq.is_none() && steps.vla.is_none() && steps.lerobot.is_none() && steps.rollouts.is_empty();
        if none {
            return Err(Problem::new("pipeline", "no step", "set pipeline.laq.experiment and so on"));
        }
        let good = |name: &str| name.chars().all(|char| char.is_ascii_alphanumeric() || "_-".contains(char));
        if let Some(name) = steps.rollouts.keys().find(|name| !good(name)) {
            let message = format!("'{name}' cannot name a directory");
            return Err(Problem::new("pipeline.rollouts", message, "use letters, digits, '_' and '-'"));
        }
        steps.all().try_for_each(|(key, step)| step.check().map_err(|problem| problem.inside(&key)))
    }
}

impl StepsConfig {
    /// The steps with their keys.
    fn all(&self) -> impl Iterator<Item = (String, &StepConfig)> {
        let single = [("laq", &self.laq), ("vla", &self.vla), ("lerobot", &self.lerobot)];
        let single = single.into_iter().filter_map(|(name, step)| Some((format!("pipeline.{name}"), step.as_ref()?)));
        single.chain(self.rollouts.iter().map(|(name, step)| (format!("pipeline.rollouts.{name}"), step)))
    }
}

impl Check for StepConfig {
    fn check(&self) -> Result<(), Problem> {
        const RUN_DIR: &str = "logging.run_dir";
        if self.overrides.iter().any(|word| word_key(word) == RUN_DIR) {
            let message = format!("{RUN_DIR} of a step is a folder of the pipeline's run directory");
            return Err(Problem::new("overrides", message, format!("remove it here, set {RUN_DIR} of the pipeline")));
        }
        Ok(())
    }
}
