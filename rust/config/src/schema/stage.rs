//! Which typed configuration an experiment belongs to.

use super::{LaqConfig, LerobotTrainConfig, PipelineConfig, RolloutConfig, VlaConfig};
use crate::{Composed, ErrorKind, error::Result};
use serde::{Deserialize, Serialize};

/// The key that names the stage of an experiment.
pub(crate) const STAGE_KEY: &str = "experiment.stage";

/// What an experiment does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Stage 1, `hlrp train-laq`: [`LaqConfig`].
    Laq,
    /// Stage 2, `hlrp train-vla`: [`VlaConfig`].
    Vla,
    /// Stage 3, `hlrp train-lerobot`: [`LerobotTrainConfig`].
    LerobotTrain,
    /// Stage 3, `hlrp rollout-lerobot`: [`RolloutConfig`].
    LerobotRollout,
    /// All stages in turn, `hlrp pipeline`: [`PipelineConfig`].
    Pipeline,
}

impl Stage {
    const ALL: [Self; 5] = [Stage::Laq, Stage::Vla, Stage::LerobotTrain, Stage::LerobotRollout, Stage::Pipeline];

    /// As written in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Laq => "laq",
            Stage::Vla => "vla",
            Stage::LerobotTrain => "lerobot_train",
            Stage::LerobotRollout => "lerobot_rollout",
            Stage::Pipeline => "pipeline",
        }
    }

    /// The subcommand of `hlrp` that runs such an experiment.
    pub fn command(self) -> &'static str {
        match self {
            Stage::Laq => "train-laq",
            Stage::Vla => "train-vla",
            Stage::LerobotTrain => "train-lerobot",
            Stage::LerobotRollout => "rollout-lerobot",
            Stage::Pipeline => "pipeline",
        }
    }

    /// The stage that a composition names.
    ///
    /// # Errors
    /// It names none, or an unknown one.
    pub fn of(composed: &Composed) -> Result<Self> {
        let node = composed.tree().get(STAGE_KEY);
        let name = node.and_then(|node| node.as_str()).unwrap_or_default();
        Self::ALL.into_iter().find(|stage| stage.name() == name).ok_or_else(|| {
            let message = format!("{STAGE_KEY} is '{name}', and no program does that");
            let names = Self::ALL.map(Self::name).join(", ");
            let error = crate::ConfigError::new(ErrorKind::Value, message).hint(format!("set it to one of {names}"));
            node.map_or(error.clone(), |node| error.at(&node.origin))
        })
    }

    /// Types and checks a composition of this stage.
    ///
    /// # Errors
    /// As [`Composed::extract`].
    pub fn check(self, composed: &Composed) -> Result<()> {
        match self {
            Stage::Laq => composed.extract::<LaqConfig>().map(|_| ()),
            Stage::Vla => composed.extract::<VlaConfig>().map(|_| ()),
            Stage::LerobotTrain => composed.extract::<LerobotTrainConfig>().map(|_| ()),
            Stage::LerobotRollout => composed.extract::<RolloutConfig>().map(|_| ()),
            Stage::Pipeline => composed.extract::<PipelineConfig>().map(|_| ()),
        }
    }
}
