//! How a policy's inputs are prepared.

use super::{DataFacts, FeatureFacts, ModelSpec, UNRESOLVED};
use crate::rules::{Checked, at_least, require, section};
use hlrp_config::{Check, Problem};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// Section `processor`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // each key is explained next to its default in config/policy/
pub struct ProcessorSpec {
    pub image_preparation: ImagePreparation,
    pub frame_size: Option<[usize; 2]>,
    pub tokenizer: Option<PathBuf>,
    pub tokenizer_max_length: usize,
    pub pad_language_to: Padding,
    pub padding_side: Side,
    pub truncation_side: Side,
    pub system_prompt: String,
    pub newline: bool,
    pub state: Option<Scaling>,
    pub action: Option<Scaling>,
}

/// How images are brought to the model's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImagePreparation {
    /// Bilinear to the largest size that fits, then padded on the left and the top.
    #[serde(rename = "pad-resize-bilinear-left-top/1")]
    PadResizeBilinearLeftTop,
}

/// An end of a token sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Its beginning.
    Left,
    /// Its end.
    Right,
}

/// How long the token sequences of a batch become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// As the longest of the batch.
    Longest,
    /// Always the maximum length.
    MaxLength,
}

/// How one feature is scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScalingMode {
    /// As it is.
    Identity,
    /// `(x − mean) / (std + ε)`.
    MeanStd,
    /// From `[min, max]` to [−1, 1].
    MinMax,
    /// From the 1 % and 99 % quantiles to [−1, 1]; not clipped.
    Quantiles,
}

/// Scaling of one feature; dimensions and statistics are null until the data fills them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scaling {
    /// How it is scaled.
    pub mode: ScalingMode,
    /// Dimensions of the feature.
    pub dim: Option<usize>,
    /// Statistics by their names in LeRobot's `stats.json`; at least those that the mode needs.
    pub statistics: Option<BTreeMap<String, Vec<f64>>>,
}

impl ScalingMode {
    /// Names of the statistics that it needs.
    pub fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Identity => &[],
            Self::MeanStd => &["mean", "std"],
            Self::MinMax => &["min", "max"],
            Self::Quantiles => &["q01", "q99"],
        }
    }
}

impl Scaling {
    fn resolve(&mut self, facts: &FeatureFacts) -> Checked {
        let dim = facts.dim;
        let message = format!("the data's has {dim} dimensions");
        require(self.dim.is_none_or(|given| given == dim), "dim", message, "set it to null")?;
        self.dim = Some(dim);
        self.statistics.get_or_insert_with(|| facts.statistics.clone());
        self.check()
    }

    fn check_resolved(&self) -> Checked {
        require(self.dim.is_some(), "dim", "null", UNRESOLVED)?;
        require(self.statistics.is_some(), "statistics", "null", UNRESOLVED)
    }
}

impl Check for Scaling {
    fn check(&self) -> Checked {
        at_least("dim", self.dim.unwrap_or(1), 1)?;
        let (Some(dim), Some(statistics)) = (self.dim, &self.statistics) else { return Ok(()) };
        let refuse = |problem: String| {
            let hint = "recompute the dataset's meta/stats.json, or choose another mode for this feature";
            Err(Problem::new("statistics", problem, hint))
        };
        for name in self.mode.needs() {
            let Some(values) = statistics.get(*name) else { return refuse(format!("there is no `{name}`")) };
            if values.len() != dim {
                return refuse(format!("`{name}` has {} values where {dim} are needed", values.len()));
            }
            if values.iter().any(|value| !value.is_finite()) {
                return refuse(format!("`{name}` has a value that is not finite"));
            }
        }
        Ok(())
    }
}

impl ProcessorSpec {
    /// Checks that nothing is left to be filled.
    ///
    /// # Errors
    /// The first value that is null and must not be.
    pub fn check_resolved(&self) -> Checked {
        [("state", &self.state), ("action", &self.action)]
            .into_iter()
            .try_for_each(|(key, scaling)| section(key, scaling.as_ref().map_or(Ok(()), Scaling::check_resolved)))
    }

    /// States and actions fit the model; keys are relative to the policy.
    pub(super) fn check_dims(&self, model: &ModelSpec) -> Checked {
        let dim = |scaling: &Option<Scaling>| scaling.as_ref().and_then(|scaling| scaling.dim);
        if let (Some(dim), Some(most)) = (dim(&self.state), model.arch.get().max_state_dim()) {
            require(
                dim as i64 <= most,
                &format!("model.arch.{}.max_state_dim", model.arch.name()),
                format!("{most}, but states have {dim} dimensions"),
                format!("raise it to at least {dim}"),
            )?;
        }
        let (Some(own), Some(of_model)) = (dim(&self.action), model.action_dim) else { return Ok(()) };
        let message = format!("{own}, but the model's actions have {of_model} dimensions");
        require(own as i64 == of_model, "processor.action.dim", message, "set both to the same, or to null")
    }

    /// Takes over dimensions and statistics of the data's vectors, drops what the data or the architecture lacks, and the paths.
    pub(super) fn resolve(&mut self, data: &DataFacts, sees_state: bool) -> Checked {
        self.tokenizer = None;
        let state = data.state.as_ref().filter(|_| sees_state);
        for (key, scaling, facts) in
            [("state", &mut self.state, state), ("action", &mut self.action, data.action.as_ref())]
        {
            match (&mut *scaling, facts) {
                (Some(scaling), Some(facts)) => section(key, scaling.resolve(facts))?,
                _ => *scaling = None,
            }
        }
        Ok(())
    }
}

impl Check for ProcessorSpec {
    fn check(&self) -> Checked {
        at_least("tokenizer_max_length", self.tokenizer_max_length, 1)?;
        self.frame_size.into_iter().flatten().try_for_each(|side| at_least("frame_size", side, 1))?;
        section("state", self.state.as_ref().map_or(Ok(()), Check::check))?;
        section("action", self.action.as_ref().map_or(Ok(()), Check::check))
    }
}
