//! AdamW over named parameters in two decay groups.

use crate::{Result, RowReset, TrainError};
use hlrp_schema::OptimizerConfig;
use hlrp_torch::{AdamWStep, clear_grads, fused_adamw};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use tch::{Kind, Tensor};

/// Parameters that share a weight decay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecayGroup {
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Names of its parameters, in the model's order.
    pub names: Vec<String>,
}

/// One parameter and what AdamW remembers of it.
struct Slot {
    name: String,
    param: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    /// Float32 scalar: steps in which this parameter had a gradient.
    step: Tensor,
    decays: bool,
}

/// AdamW through the fused kernel. Parameters without a gradient in a step are left alone, as in `torch.optim.AdamW`.
pub struct Optimizer {
    slots: Vec<Slot>,
    config: OptimizerConfig,
}

impl Optimizer {
    /// Moments of zero for every parameter that has entries.
    ///
    /// # Errors
    /// A setting out of range; a parameter that is not float32, not contiguous, or not trainable; a name twice.
    pub fn new(parameters: &[(String, Tensor)], config: &OptimizerConfig) -> Result<Self> {
        check(config)?;
        let mut slots: Vec<Slot> = Vec::new();
        let mut names = HashSet::new();
        for (name, param) in parameters {
            let wrong = |reason: &str| Err(TrainError::Parameter { name: name.clone(), reason: reason.to_owned() });
            if param.kind() != Kind::Float {
                return wrong("master weights are float32");
            }
            if !param.is_contiguous() || !param.requires_grad() {
                return wrong("a trainable parameter is a contiguous tensor that requires a gradient");
            }
            if !names.insert(name) {
                return wrong("two parameters have this name");
            }
            if param.numel() == 0 {
                continue;
            }
            let zeros = || param.detach().zeros_like();
            slots.push(Slot {
                name: name.clone(),
                param: param.shallow_clone(),
                exp_avg: zeros(),
                exp_avg_sq: zeros(),
                step: Tensor::zeros([], (Kind::Float, param.device())),
                decays: param.dim() >= 2,
            });
        }
        Ok(Self { slots, config: config.clone() })
    }

    /// The decay groups: parameters with two or more dimensions, then the rest, which does not decay.
    pub fn groups(&self) -> [DecayGroup; 2] {
        [(true, self.config.weight_decay), (false, 0.0)].map(|(decays, weight_decay)| DecayGroup {
            weight_decay,
            names: self.slots.iter().filter(|slot| slot.decays == decays).map(|slot| slot.name.clone()).collect(),
        })
    }

    /// Gradients that the last backward passes left, in the parameters' order.
    pub fn gradients(&self) -> Vec<Tensor> {
        self.slots.iter().map(|slot| slot.param.grad()).filter(Tensor::defined).collect()
    }

    /// Removes all gradients.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn clear_gradients(&self) -> Result<()> {
        let params: Vec<Tensor> = self.slots.iter().map(|slot| slot.param.shallow_clone()).collect();
        Ok(clear_grads(&params)?)
    }

    /// One step at the rate `lr`. Does not wait for the device.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn step(&self, lr: f64) -> Result<()> {
        for (decays, weight_decay) in [(true, self.config.weight_decay), (false, 0.0)] {
            let active: Vec<(&Slot, Tensor)> = self
                .slots
                .iter()
                .filter(|slot| slot.decays == decays)
                .map(|slot| (slot, slot.param.grad()))
                .filter(|(_, grad)| grad.defined())
                .collect();
            let list =
                |of: fn(&Slot) -> &Tensor| active.iter().map(|(slot, _)| of(slot).shallow_clone()).collect::<Vec<_>>();
            let grads: Vec<Tensor> = active.iter().map(|(_, grad)| grad.shallow_clone()).collect();
            let [beta1, beta2] = self.config.betas;
            fused_adamw(
                &list(|slot| &slot.param),
                &grads,
                &list(|slot| &slot.exp_avg),
                &list(|slot| &slot.exp_avg_sq),
                &list(|slot| &slot.step),
                AdamWStep { lr, beta1, beta2, weight_decay, eps: self.config.eps },
            )?;
        }
        Ok(())
    }

    /// Zeroes the moments and the gradient of rows that the model rewrote: both describe vectors that are gone.
    ///
    /// # Errors
    /// A parameter that does not exist.
    pub fn reset_rows(&self, reset: &RowReset) -> Result<()> {
        let slot =
            self.slots.iter().find(|slot| slot.name == reset.parameter).ok_or_else(|| TrainError::Parameter {
                name: reset.parameter.clone(),
                reason: "rows of it were rewritten, but the model has no such parameter".to_owned(),
            })?;
        let grad = slot.param.grad();
        let tensors = [Some(&slot.exp_avg), Some(&slot.exp_avg_sq), grad.defined().then_some(&grad)];
        for tensor in tensors.into_iter().flatten() {
            let _ = tch::no_grad(|| tensor.shallow_clone().f_index_fill_(0, &reset.rows, 0.0))?;
        }
        Ok(())
    }

    /// What AdamW remembers, by name: `exp_avg.<parameter>`, `exp_avg_sq.<parameter>`, `step.<parameter>`.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let entry = |slot: &Slot| {
            [("exp_avg", &slot.exp_avg), ("exp_avg_sq", &slot.exp_avg_sq), ("step", &slot.step)]
                .map(|(kind, tensor)| (format!("{kind}.{}", slot.name), tensor.shallow_clone()))
        };
        self.slots.iter().flat_map(entry).collect()
    }
}

fn check(config: &OptimizerConfig) -> Result<()> {
    let wrong = |key, reason: String| Err(TrainError::Setting { key, reason });
    for beta in config.betas {
        if !(0.0..1.0).contains(&beta) {
            return wrong("training.optimizer.betas", format!("{beta} does not lie in [0, 1)"));
        }
    }
    if !(config.eps.is_finite() && config.eps > 0.0) {
        return wrong("training.optimizer.eps", format!("{} is not a positive number", config.eps));
    }
    if !(config.weight_decay.is_finite() && config.weight_decay >= 0.0) {
        return wrong(
            "training.optimizer.weight_decay",
            format!("{} is negative or not a number", config.weight_decay),
        );
    }
    Ok(())
}
