//! The losses of a batch, as Python gets them.

use crate::failure::Failure;
use hlrp_schema::policy::ObjectiveSpec;
use hlrp_vla::{SupervisedLoss, VlaLoss};
use tch::Tensor;

/// How the losses of a batch are averaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reduction {
    Mean,
    PerSample,
}

impl Reduction {
    /// The reduction of that name in PyTorch.
    pub(crate) fn read(name: &str) -> Result<Self, Failure> {
        match name {
            "mean" => Ok(Self::Mean),
            "none" => Ok(Self::PerSample),
            other => Err(Failure::value(format!("reduction: unknown reduction `{other}`\nhint: choose mean or none"))),
        }
    }

    /// The losses under their names, the same in every mode.
    pub(crate) fn of(self, loss: &VlaLoss, objective: &ObjectiveSpec, num_samples: i64) -> Vec<(&'static str, Tensor)> {
        let part = |part: &SupervisedLoss| match self {
            Self::Mean => part.mean.shallow_clone(),
            Self::PerSample => part.per_sample_B.shallow_clone(),
        };
        let [latent, action] = [&loss.latent, &loss.action].map(|supervised| supervised.as_ref().map(part));
        let total = match self {
            Self::Mean => loss.total.shallow_clone(),
            Self::PerSample => {
                let weighted = [(&latent, objective.latent_loss_weight), (&action, objective.action_loss_weight)];
                let terms = weighted.into_iter().filter_map(|(part, weight)| part.as_ref().map(|part| part * weight));
                terms.reduce(|sum, term| sum + term).unwrap_or_else(|| loss.total.expand([num_samples], false))
            }
        };
        let zero = total.detach().zeros_like();
        let detached = |part: Option<Tensor>| part.map_or_else(|| zero.shallow_clone(), |part| part.detach());
        let count = |part: &Option<SupervisedLoss>| {
            part.as_ref().map_or_else(|| loss.total.detach().zeros_like(), |part| part.num_supervised.detach())
        };
        vec![
            ("latent_loss", detached(latent)),
            ("action_loss", detached(action)),
            ("num_latent_samples", count(&loss.latent)),
            ("num_action_samples", count(&loss.action)),
            ("loss", total),
        ]
    }
}
