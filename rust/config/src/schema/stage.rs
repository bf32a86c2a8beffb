//! Which typed configuration an experiment belongs to.

use super::LaqConfig;
use crate::{Composed, ErrorKind, error::Result};
use serde::{Deserialize, Serialize};

/// The key that names the stage of an experiment.
pub(crate) const STAGE_KEY: &str = "experiment.stage";

/// What an experiment trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Stage 1, `hlrp train-laq`: [`LaqConfig`].
    Laq,
}

impl Stage {
    /// As written in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Laq => "laq",
        }
    }

    /// The stage that a composition names.
    ///
    /// # Errors
    /// It names none, or an unknown one.
    pub fn of(composed: &Composed) -> Result<Self> {
        let node = composed.tree().get(STAGE_KEY);
        let name = node.and_then(|node| node.as_str()).unwrap_or_default();
        [Stage::Laq].into_iter().find(|stage| stage.name() == name).ok_or_else(|| {
            let message = format!("{STAGE_KEY} is '{name}', and no program trains that");
            let error = crate::ConfigError::new(ErrorKind::Value, message).hint("set it to laq");
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
        }
    }
}
