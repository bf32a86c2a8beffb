//! Losses and how they add up.
//!
//! Shape suffixes: B samples, T steps, D numbers per step.

use crate::{ActionTarget, LatentTarget, Targets, VlaError};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// What a policy learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The teacher's latent actions.
    Latent,
    /// Real actions.
    Actions,
    /// Both, from one look at the observation.
    Multitask,
}

impl Mode {
    /// Whether latent actions are learned.
    pub fn with_latents(self) -> bool {
        self != Self::Actions
    }

    /// Whether real actions are learned.
    pub fn with_actions(self) -> bool {
        self != Self::Latent
    }
}

/// What is learned and with which weights.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objective {
    /// Which losses there are.
    pub mode: Mode,
    /// Factor on the latent loss.
    pub latent_weight: f64,
    /// Factor on the action loss.
    pub action_weight: f64,
}

/// A mean squared error over what is supervised.
pub struct SupervisedLoss {
    /// Mean over every supervised number of the batch; 0 where nothing is supervised.
    pub mean: Tensor,
    /// `[B]` mean over the supervised numbers of each sample.
    pub per_sample_B: Tensor,
    /// Samples with at least one supervised number.
    pub num_supervised: Tensor,
}

impl SupervisedLoss {
    /// From squared errors `[B,T,D]` and supervision `bool [B,T]`.
    pub fn new(squared_error_BTD: &Tensor, is_supervised_BT: &Tensor) -> Self {
        let width = squared_error_BTD.size()[2];
        let weight_BT = is_supervised_BT.to_kind(Kind::Float);
        let sum_B = (squared_error_BTD * weight_BT.unsqueeze(2)).sum_dim_intlist([1, 2].as_slice(), false, Kind::Float);
        let count_B = weight_BT.sum_dim_intlist([1].as_slice(), false, Kind::Float) * width as f64;
        Self {
            mean: sum_B.sum(Kind::Float) / count_B.sum(Kind::Float).clamp_min(1.0),
            num_supervised: count_B.gt(0.0).sum(Kind::Float),
            per_sample_B: sum_B / count_B.clamp_min(1.0),
        }
    }
}

/// Losses of a batch.
pub struct VlaLoss {
    /// Weighted sum: what is differentiated.
    pub total: Tensor,
    /// On latent actions.
    pub latent: Option<SupervisedLoss>,
    /// On real actions.
    pub action: Option<SupervisedLoss>,
}

impl VlaLoss {
    /// Adds the losses up with the weights of `objective`.
    pub(crate) fn new(latent: Option<SupervisedLoss>, action: Option<SupervisedLoss>, objective: &Objective) -> Self {
        let weighted = [(&latent, objective.latent_weight), (&action, objective.action_weight)]
            .into_iter()
            .filter_map(|(loss, weight)| loss.as_ref().map(|loss| &loss.mean * weight));
        let total = weighted.reduce(|sum, term| sum + term).unwrap_or_else(|| Tensor::from(0.0_f32));
        Self { total, latent, action }
    }

    /// Scalars by name, left on the device. The names are the same in every mode; an absent loss is 0 over 0 samples.
    pub fn metrics(&self) -> Vec<(&'static str, Tensor)> {
        let detached = |loss: Option<&SupervisedLoss>| match loss {
            Some(loss) => (loss.mean.detach(), loss.num_supervised.shallow_clone()),
            None => (self.total.detach().zeros_like(), self.total.detach().zeros_like()),
        };
        let (latent_loss, num_latent) = detached(self.latent.as_ref());
        let (action_loss, num_action) = detached(self.action.as_ref());
        vec![
            ("latent_loss", latent_loss),
            ("action_loss", action_loss),
            ("num_latent_samples", num_latent),
            ("num_action_samples", num_action),
        ]
    }
}

impl Targets {
    /// The latent target, checked against `[*, code_seq_len, code_dim]`.
    pub(crate) fn latent(&self, code_seq_len: i64, code_dim: i64) -> Result<&LatentTarget, VlaError> {
        let target = self.latent.as_ref().ok_or_else(|| {
            VlaError::input(
                "latent actions",
                "the batch has none",
                "bind a teacher, or train with model.mode = actions",
            )
        })?;
        let size = target.codes_BSD.size();
        if size.len() != 3 || size[1..] != [code_seq_len, code_dim] {
            let problem = format!("shape {size:?} where [B, {code_seq_len}, {code_dim}] is needed");
            return Err(VlaError::input("latent actions", problem, "use the teacher that the model was built for"));
        }
        Ok(target)
    }

    /// The action target, checked against `[*, chunk_size, action_dim]`.
    pub(crate) fn action(&self, chunk_size: i64, action_dim: i64) -> Result<&ActionTarget, VlaError> {
        let target = self.action.as_ref().ok_or_else(|| {
            VlaError::input(
                "actions",
                "the batch has none",
                "give every source an action key, or train with model.mode = latent",
            )
        })?;
        let size = target.chunk_BTA.size();
        if size.len() != 3 || size[1..] != [chunk_size, action_dim] {
            let problem = format!("shape {size:?} where [B, {chunk_size}, {action_dim}] is needed");
            return Err(VlaError::input(
                "actions",
                problem,
                "set the data request's action chunk and model.action to the same sizes",
            ));
        }
        Ok(target)
    }
}
