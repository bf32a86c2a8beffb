//! The simulator of a rollout: as configured, and for the rest as in the training of the policy.

use super::passed_on::text;
use anyhow::{Context, Result};
use hlrp_config::{Problem, foreign::read_text};
use hlrp_schema::{LerobotEvalConfig, PassedOn};
use serde_json::Value;
use std::path::Path;

/// Settings that decide what the policy sees and does. Evaluated at another resolution, a policy fails without an error.
const INHERITED: [&str; 9] = [
    "obs_type",
    "render_mode",
    "camera_name",
    "camera_name_mapping",
    "init_states",
    "observation_height",
    "observation_width",
    "control_mode",
    "episode_length",
];

/// A simulator and its settings.
#[derive(Debug, PartialEq)]
pub(super) struct Simulator {
    /// LeRobot's name for it.
    pub(super) kind: String,
    /// Task or suite; LeRobot's default when there is none.
    pub(super) task: Option<String>,
    /// Fields of `--env`.
    pub(super) settings: PassedOn,
    /// Names of those that come from the checkpoint.
    pub(super) inherited: Vec<String>,
}

impl Simulator {
    /// The simulator of a rollout of the policy in `pretrained_model`.
    ///
    /// # Errors
    /// Neither the configuration nor the checkpoint names one, or the checkpoint's `train_config.json` is damaged.
    pub(super) fn of(config: &LerobotEvalConfig, pretrained_model: &Path) -> Result<Self> {
        let trained = trained_with(pretrained_model)?;
        let trained_kind = trained["type"].as_str();
        let Some(kind) = config.env_type.as_deref().or(trained_kind) else {
            let message = "must be set: the policy was trained without a simulator";
            let hint = "lerobot_eval.env_type=pusht, metaworld, libero, ...";
            return Err(Problem::new("lerobot_eval.env_type", message, hint).into());
        };
        let mut simulator = Self {
            kind: kind.to_owned(),
            task: config.env_task.clone(),
            settings: config.env_settings.clone(),
            inherited: Vec::new(),
        };
        if config.inherit_env_settings && trained_kind == Some(kind) {
            simulator.inherit(&trained);
        }
        Ok(simulator)
    }

    fn inherit(&mut self, trained: &Value) {
        if let (None, Some(task)) = (&self.task, trained["task"].as_str()) {
            self.task = Some(task.to_owned());
            self.inherited.push("task".to_owned());
        }
        for name in INHERITED {
            let value = &trained[name];
            if !value.is_null() && !self.settings.contains_key(name) {
                // A map is one value here, not a section of further flags.
                let value = if value.is_object() { Value::String(text(value)) } else { value.clone() };
                self.settings.insert(name.to_owned(), value);
                self.inherited.push(name.to_owned());
            }
        }
    }
}

/// The section `env` of the checkpoint's training; null where there is none.
fn trained_with(pretrained_model: &Path) -> Result<Value> {
    let path = pretrained_model.join("train_config.json");
    if !path.is_file() {
        return Ok(Value::Null);
    }
    let text = read_text(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let config: Value = serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?;
    Ok(config["env"].clone())
}
