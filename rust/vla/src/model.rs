//! A policy of either architecture.

use crate::{
    ExpertConfig, ExpertModel, FlowDraws, Mode, Objective, Observation, PooledConfig, PooledModel, Prediction, Targets,
    VlaError, VlaLoss,
};
use hlrp_nn::smolvlm::SmolVlmConfig;
use hlrp_nn::{NnError, Pass, Store};
use serde::{Deserialize, Serialize};
use tch::Device;

/// Sizes of a policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "arch", rename_all = "snake_case")]
pub enum ModelConfig {
    /// A backbone with a flow-matching expert beside it.
    Expert(ExpertConfig),
    /// A backbone with small heads on its averaged features.
    Pooled(PooledConfig),
}

impl ModelConfig {
    /// Camera roles in the model's order.
    pub fn cameras(&self) -> &[String] {
        match self {
            Self::Expert(config) => &config.cameras,
            Self::Pooled(config) => std::slice::from_ref(&config.camera),
        }
    }

    /// Height and width of prepared images.
    pub fn image_size(&self) -> [i64; 2] {
        match self {
            Self::Expert(config) => config.image_size,
            Self::Pooled(config) => config.image_size,
        }
    }

    /// Numbers of one action, if the model predicts actions.
    pub fn action_dim(&self) -> Option<i64> {
        match self {
            Self::Expert(config) => Some(config.action.action_dim),
            Self::Pooled(config) => config.action_dim,
        }
    }

    /// Sizes of latent actions, if the model predicts them.
    pub fn latent(&self) -> Option<crate::LatentConfig> {
        match self {
            Self::Expert(config) => config.latent,
            Self::Pooled(config) => Some(config.latent),
        }
    }
}

/// Checks a backbone's sizes and that it can take pictures of `image_size`.
pub(crate) fn check_backbone(backbone: &SmolVlmConfig, image_size: [i64; 2]) -> Result<(), VlaError> {
    backbone.validate()?;
    let [height, width] = image_size;
    match backbone.num_image_tokens(height, width) {
        Err(NnError::Sizes { problem, hint }) => Err(VlaError::Config { key: "image_size", problem, hint }),
        Err(other) => Err(other.into()),
        Ok(_) => Ok(()),
    }
}

/// A policy.
pub enum VlaModel {
    /// `arch: expert`.
    Expert(ExpertModel),
    /// `arch: pooled`.
    Pooled(PooledModel),
}

impl VlaModel {
    /// A model with fresh weights from the CPU's generator.
    ///
    /// # Errors
    /// A configuration that makes no model.
    pub fn new(config: &ModelConfig, device: Device) -> Result<Self, VlaError> {
        Self::over(config, Store::new(device))
    }

    /// A model over the tensors of `store`, which is empty so far: those of the caller ([`Store::over`]), or shapes alone
    /// ([`Store::sketch`]).
    ///
    /// # Errors
    /// A configuration that makes no model, or tensors that are not exactly its own.
    pub fn over(config: &ModelConfig, store: Store) -> Result<Self, VlaError> {
        Ok(match config {
            ModelConfig::Expert(config) => Self::Expert(ExpertModel::over(config, store)?),
            ModelConfig::Pooled(config) => Self::Pooled(PooledModel::over(config, store)?),
        })
    }

    /// Parameters and buffers.
    pub fn store(&self) -> &Store {
        match self {
            Self::Expert(model) => model.store(),
            Self::Pooled(model) => model.store(),
        }
    }

    /// Patterns of the parameters that take no part in `mode`.
    pub fn unused_in(&self, mode: Mode) -> Vec<String> {
        match self {
            Self::Expert(model) => model.unused_in(mode),
            Self::Pooled(model) => model.unused_in(mode),
        }
    }

    /// Losses of a batch, the observation seen once.
    ///
    /// # Errors
    /// An observation or target that is missing or does not fit the model, or a head that the model lacks.
    pub fn loss(
        &self,
        observation: &Observation,
        targets: &Targets,
        objective: &Objective,
        draws: &mut dyn FlowDraws,
        pass: &Pass<'_>,
    ) -> Result<VlaLoss, VlaError> {
        match self {
            Self::Expert(model) => model.loss(observation, targets, objective, draws, pass),
            Self::Pooled(model) => model.loss(observation, targets, objective, draws, pass),
        }
    }

    /// What the policy predicts, without a gradient.
    ///
    /// # Errors
    /// An observation that does not fit the model, or a head that it lacks.
    pub fn sample(
        &self,
        observation: &Observation,
        mode: Mode,
        draws: &mut dyn FlowDraws,
        pass: &Pass<'_>,
    ) -> Result<Prediction, VlaError> {
        match self {
            Self::Expert(model) => model.sample(observation, mode, draws, pass),
            Self::Pooled(model) => model.sample(observation, mode, draws, pass),
        }
    }
}
