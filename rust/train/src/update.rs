//! How weights change: the gradient's norm, the learning rate, AdamW, and the average of the weights.

use crate::{
    error::{Result, TrainError},
    task::RowReset,
};
use hlrp_schema::{EmaConfig, OptimizerConfig, SchedulerConfig, SchedulerType};
use hlrp_torch::{AdamWStep, clear_grads, fused_adamw};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, f64::consts::PI};
use tch::{Device, Kind, Tensor};

/// Added to the norm before the division, as in `torch.nn.utils.clip_grad_norm_`.
const NORM_EPSILON: f64 = 1e-6;

/// Global L2 norm of `grads`, a scalar on `device`; with `clip_norm`, scales them in place by
/// `min(1, clip_norm / (norm + 1e-6))` like `torch.nn.utils.clip_grad_norm_`. Does not wait for the device.
///
/// # Errors
/// Whatever libtorch refuses.
pub fn norm_and_clip(grads: &[Tensor], clip_norm: Option<f64>, device: Device) -> Result<Tensor> {
    if grads.is_empty() {
        return Ok(Tensor::zeros([], (Kind::Float, device)));
    }
    let norm = hlrp_torch::norm(grads)?;
    if let Some(clip_norm) = clip_norm {
        let factor = (clip_norm / (&norm + NORM_EPSILON)).clamp_max(1.0);
        hlrp_torch::mul_by_scalar(grads, &factor)?;
    }
    Ok(norm)
}

/// Smallest fraction of the base rate at which a warm-up starts.
const LEAST_START_FRACTION: f64 = 1e-8;

/// Linear warm-up over W steps, then half a cosine down to `min_lr` at step T, then `min_lr`; or a constant.
///
/// With k finished steps, base rate b and f = max(1e-8, warmup_start_lr / b):
///
/// - k < W: `b * (f + (1-f) * k/W)`
/// - W <= k < T: `min_lr + (b - min_lr) * (1 + cos(pi * (k-W)/(T-W))) / 2` (Loshchilov and Hutter, 2017, one period)
/// - k >= T: `min_lr`
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    kind: SchedulerType,
    base_lr: f64,
    start_fraction: f64,
    min_lr: f64,
    warmup_steps: u64,
    max_steps: u64,
}

impl Schedule {
    /// The schedule of a run of `max_steps` optimizer steps.
    pub fn new(config: &SchedulerConfig, base_lr: f64, max_steps: u64) -> Self {
        Self {
            kind: config.kind,
            base_lr,
            start_fraction: (config.warmup_start_lr / base_lr).max(LEAST_START_FRACTION),
            min_lr: config.min_lr,
            warmup_steps: config.warmup_steps,
            max_steps,
        }
    }

    /// The same shape with all rates multiplied by `factor`.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Self { base_lr: self.base_lr * factor, min_lr: self.min_lr * factor, ..self }
    }

    /// Learning rate of the step that follows `num_done` finished steps.
    pub fn lr(&self, num_done: u64) -> f64 {
        if self.kind == SchedulerType::None {
            return self.base_lr;
        }
        if num_done < self.warmup_steps {
            let progress = num_done as f64 / self.warmup_steps as f64;
            return self.base_lr * (self.start_fraction + (1.0 - self.start_fraction) * progress);
        }
        if num_done >= self.max_steps {
            return self.min_lr;
        }
        let progress = (num_done - self.warmup_steps) as f64 / (self.max_steps - self.warmup_steps) as f64;
        self.min_lr + (self.base_lr - self.min_lr) * (1.0 + (PI * progress).cos()) / 2.0
    }
}

/// Parameters that share a weight decay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecayGroup {
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Names of its parameters, in the model's order.
    pub names: Vec<String>,
}

/// One parameter and its AdamW state.
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
    /// A parameter that is not float32, not contiguous, or not trainable; a name twice.
    pub fn new(parameters: &[(String, Tensor)], config: &OptimizerConfig) -> Result<Self> {
        let mut slots: Vec<Slot> = Vec::new();
        let mut names = BTreeSet::new();
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

    /// The parameters, in their order.
    pub(crate) fn params(&self) -> Vec<Tensor> {
        self.slots.iter().map(|slot| slot.param.shallow_clone()).collect()
    }

    /// Removes all gradients.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn clear_gradients(&self) -> Result<()> {
        Ok(clear_grads(&self.params())?)
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

    /// The state of AdamW by name: `exp_avg.<parameter>`, `exp_avg_sq.<parameter>`, `step.<parameter>`.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let entry = |slot: &Slot| {
            [("exp_avg", &slot.exp_avg), ("exp_avg_sq", &slot.exp_avg_sq), ("step", &slot.step)]
                .map(|(kind, tensor)| (format!("{kind}.{}", slot.name), tensor.shallow_clone()))
        };
        self.slots.iter().flat_map(entry).collect()
    }
}

/// Float32 averages of the parameters: `average += (1 - decay) * (weight - average)`, as in `torch.optim.swa_utils`. The first
/// update copies the weights; before it there are no averages, and nobody may use them.
pub struct Ema {
    config: EmaConfig,
    names: Vec<String>,
    weights: Vec<Tensor>,
    averages: Vec<Tensor>,
    num_updates: u64,
}

impl Ema {
    /// Averages that start as copies of `parameters`.
    pub fn new(parameters: &[(String, Tensor)], config: &EmaConfig) -> Self {
        Self {
            config: config.clone(),
            names: parameters.iter().map(|(name, _)| name.clone()).collect(),
            weights: parameters.iter().map(|(_, weight)| weight.shallow_clone()).collect(),
            averages: parameters.iter().map(|(_, weight)| weight.detach().copy()).collect(),
            num_updates: 0,
        }
    }

    /// Updates the averages after `step` if `step > update_after_step` and `step` is a multiple of `update_every_n_steps`.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn update(&mut self, step: u64) -> Result<()> {
        if step <= self.config.update_after_step || !step.is_multiple_of(self.config.update_every_n_steps) {
            return Ok(());
        }
        // A weight of one copies: torch's lerp gives the end itself there.
        let weight = if self.num_updates == 0 { 1.0 } else { 1.0 - self.config.decay };
        hlrp_torch::lerp(&self.averages, &self.weights, weight)?;
        self.num_updates += 1;
        Ok(())
    }

    /// Copies rows that the model rewrote: their average describes vectors that no longer exist.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn reset_rows(&self, reset: &RowReset) -> Result<()> {
        let Some(index) = self.names.iter().position(|name| *name == reset.parameter) else { return Ok(()) };
        let rows = self.weights[index].detach().f_index_select(0, &reset.rows)?;
        let _ = self.averages[index].shallow_clone().f_index_copy_(0, &reset.rows, &rows)?;
        Ok(())
    }

    /// Runs `body` while the model's parameters hold the averages, then restores their own values, bit for bit. Before the
    /// first update the parameters keep their own values.
    pub fn with_averages<R>(&self, body: impl FnOnce() -> R) -> R {
        if self.num_updates == 0 {
            return body();
        }
        self.exchange();
        let result = body();
        self.exchange();
        result
    }

    /// Names and averages.
    pub fn averages(&self) -> Vec<(String, Tensor)> {
        self.names.iter().cloned().zip(self.averages.iter().map(Tensor::shallow_clone)).collect()
    }

    /// Updates so far.
    pub fn num_updates(&self) -> u64 {
        self.num_updates
    }

    /// Continues after `num_updates` updates; the averages themselves are loaded through [`Ema::averages`].
    pub fn set_num_updates(&mut self, num_updates: u64) {
        self.num_updates = num_updates;
    }

    /// Swaps the contents of weights and averages; one parameter's worth of extra memory.
    fn exchange(&self) {
        tch::no_grad(|| {
            for (weight, average) in self.weights.iter().zip(&self.averages) {
                let held = weight.detach().copy();
                weight.shallow_clone().copy_(average);
                average.shallow_clone().copy_(&held);
            }
        });
    }
}
