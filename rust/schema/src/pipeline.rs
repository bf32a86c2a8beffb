//! The tree of `hlrp pipeline`: which experiments run in turn.

use crate::rules::{directory_name, section};
use crate::run::{check_common, stage_config};
use crate::stage::StageConfig;
use crate::study::StudyConfig;
use hlrp_config::{Check, Problem, override_key};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

stage_config! {
    /// Everything that `hlrp pipeline` reads.
    PipelineConfig of Pipeline {
        /// The steps.
        pipeline: StepsConfig,
    }
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
    /// Many runs and a table that compares them; null leaves it out.
    pub study: Option<StudyConfig>,
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
        check_common(&self.common())?;
        let steps = &self.pipeline;
        let stages =
            steps.laq.is_some() || steps.vla.is_some() || steps.lerobot.is_some() || !steps.rollouts.is_empty();
        match (&steps.study, stages) {
            (None, false) => return Err(Problem::new("pipeline", "no step", "set pipeline.laq.experiment and so on")),
            (Some(_), true) => {
                let hint = "set pipeline.laq, vla and lerobot to null and rollouts to {}, or study to null";
                return Err(Problem::new("pipeline.study", "there are other steps too", hint));
            }
            (Some(study), false) => section("pipeline.study", study.check())?,
            (None, true) => {}
        }
        steps.rollouts.keys().try_for_each(|name| directory_name("pipeline.rollouts", name))?;
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
        if self.overrides.iter().any(|change| override_key(change) == RUN_DIR) {
            let message = format!("{RUN_DIR} of a step is a folder of the pipeline's run directory");
            return Err(Problem::new("overrides", message, format!("remove it here, set {RUN_DIR} of the pipeline")));
        }
        Ok(())
    }
}
