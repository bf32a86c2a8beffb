//! What a checkpoint says of its task: the contract between the stages.

use crate::data::DeltaUnit;
use crate::laq::LaqModelConfig;
use crate::migrate::{migrate_laq_model, migrate_policy};
use crate::policy::{PolicySpec, from_version_1};
use crate::stage::Stage;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;

/// What was trained, by stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
#[allow(clippy::large_enum_variant)] // a program holds one or two of them
pub enum TaskDescription {
    /// A latent action model.
    Laq(LaqDescription),
    /// A policy, resolved.
    Vla(Box<PolicySpec>),
}

/// A latent action model and the frame pairs that it was trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaqDescription {
    /// The model.
    pub model: LaqModelConfig,
    /// Spacing of the frame pairs.
    pub pair: PairSpacing,
    /// Id of the image preprocessing.
    pub preprocess: String,
}

/// The folder with the encoder and the quantizer of a latent action model, without decoders: `hlrp export-laq`.
pub mod laq_encoder {
    /// Name of its format.
    pub const FORMAT: &str = "hlrp-laq-encoder";
    /// Its file that says what it is: an object with `format`.
    pub const DESCRIPTION: &str = "config.json";
}

/// Offsets of a frame pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairSpacing {
    /// Unit of the offsets.
    pub unit: DeltaUnit,
    /// Offsets of both frames from the anchor.
    pub image_deltas: Vec<f64>,
}

impl fmt::Display for PairSpacing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            DeltaUnit::Frames => "frames",
            DeltaUnit::Seconds => "seconds",
        };
        write!(f, "{:?} {unit}", self.image_deltas)
    }
}

impl TaskDescription {
    /// The stage that trained it.
    pub fn stage(&self) -> Stage {
        match self {
            Self::Laq(_) => Stage::Laq,
            Self::Vla(_) => Stage::Vla,
        }
    }

    /// Reads the description in a checkpoint of an older format version. One of version 1 (`is_version_1`) needs the settings of its run (the
    /// whole tree, migrated): they have what it did not describe.
    ///
    /// # Errors
    /// A missing or unknown key, or an invalid value; the text names it.
    pub fn read(mut task: Value, is_version_1: bool, settings: Option<&Value>) -> Result<Self, String> {
        if is_version_1 && task["stage"] == "vla" {
            if let Some(map) = task.as_object_mut() {
                map.remove("stage");
            }
            task = from_version_1(&task, settings.and_then(|settings| settings.get("policy")))?;
            task["stage"] = "vla".into();
        } else if task["stage"] == "vla" {
            migrate_policy(&mut task);
        } else if task["stage"] == "laq" {
            // The model names its cameras.
            if let Some(map) = task.as_object_mut() {
                map.remove("camera");
            }
            migrate_laq_model(&mut task["model"]);
        }
        serde_json::from_value(task).map_err(|error| error.to_string())
    }

    /// Every value that differs in `other`, as `key was a, is b`; empty for equal descriptions.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        if self != other {
            // Serializing plain structs does not fail.
            let [was, is] = [self, other].map(|task| serde_json::to_value(task).unwrap_or_default());
            note_differences("", &was, &is, &mut differences);
        }
        differences
    }
}

fn note_differences(path: &str, was: &Value, is: &Value, out: &mut Vec<String>) {
    if let (Some(was), Some(is)) = (was.as_object(), is.as_object()) {
        for name in was.keys().chain(is.keys().filter(|name| !was.contains_key(*name))) {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            note_differences(&path, was.get(name).unwrap_or(&Value::Null), is.get(name).unwrap_or(&Value::Null), out);
        }
    } else if was != is {
        out.push(format!("{path} was {was}, is {is}"));
    }
}
