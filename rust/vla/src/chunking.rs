//! Real-time chunking: a chunk of actions that is computed while the chunk before is executed begins as that one goes on.
//!
//! Every step of the sampling draws the actions at which the model would arrive towards those that are left over of the chunk before: fully
//! for the steps that pass meanwhile, less and less up to the execution horizon, not at all after it (Black et al. 2025, "Real-Time
//! Execution of Action Chunking Flow Policies"). As in LeRobot the derivative of the model's guess with respect to its input is taken as the
//! identity, so there is no backward pass.
//!
//! Shape suffixes: B samples, T steps of a chunk, A dimensions of an action, padded ones included.

use crate::VlaError;
use serde::Deserialize;
use std::f64::consts::E;
use tch::{Device, Kind, Tensor};

/// How the weight of what is left over falls from the inference delay to the execution horizon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum PrefixSchedule {
    /// At once: only the steps of the delay are fixed.
    Zeros,
    /// Not before the horizon.
    Ones,
    /// Linearly.
    Linear,
    /// Linearly, and exponentially on top.
    Exp,
}

/// Real-time chunking, under LeRobot's names.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chunking {
    /// Steps that are executed while the chunk is computed.
    pub inference_delay: usize,
    /// Steps of the chunk that take the left over ones into account; at most as many as there are.
    pub execution_horizon: usize,
    /// The weights in between.
    pub prefix_attention_schedule: PrefixSchedule,
    /// Bound of the factor that grows towards the noise, where the model's guess is poor.
    pub max_guidance_weight: f64,
}

/// What draws a chunk towards the actions that are left over.
#[derive(Debug)]
pub struct Guidance {
    target: Tensor,
    /// Shaped so that it multiplies `target`.
    weight: Tensor,
    max_weight: f64,
}

impl Guidance {
    /// Guidance by `left_over`, float `[B,T',A']` or, the same for all samples, `[T',A']`, of a chunk of shape `[B,T,A]`; steps and dimensions
    /// that it lacks are 0.
    ///
    /// # Errors
    /// Actions that are more than a chunk has.
    pub fn new(chunking: &Chunking, left_over: &Tensor, chunk: [i64; 3], device: Device) -> Result<Self, VlaError> {
        let given = if left_over.dim() == 2 { left_over.unsqueeze(0) } else { left_over.shallow_clone() };
        let size = given.size();
        let fits = size.len() == 3 && [1, chunk[0]].contains(&size[0]) && size[1] <= chunk[1] && size[2] <= chunk[2];
        if !fits {
            let problem = format!("actions of shape {:?} for a chunk of shape {chunk:?}", left_over.size());
            let hint = "give the actions of the chunk before that were not executed, as the policy returned them";
            return Err(VlaError::input("left_over", problem, hint));
        }
        let target_BTA = Tensor::zeros(chunk, (Kind::Float, device));
        target_BTA.narrow(1, 0, size[1]).narrow(2, 0, size[2]).copy_(&given);
        let horizon = chunking.execution_horizon.min(size[1] as usize);
        let weights = prefix_weights(
            chunking.prefix_attention_schedule,
            chunking.inference_delay.min(horizon),
            horizon,
            chunk[1] as usize,
        );
        let weight_T1 = Tensor::from_slice(&weights).to_kind(Kind::Float).to_device(device).unsqueeze(1);
        Ok(Self { target: target_BTA, weight: weight_T1, max_weight: chunking.max_guidance_weight })
    }

    /// Bound of the factor of the error.
    pub(crate) fn max_weight(&self) -> f64 {
        self.max_weight
    }

    /// What it is made of: target and weight.
    pub(crate) fn tensors(&self) -> [&Tensor; 2] {
        [&self.target, &self.weight]
    }

    /// The same in memory of its own.
    pub(crate) fn copied(&self) -> Self {
        Self { target: self.target.copy(), weight: self.weight.copy(), max_weight: self.max_weight }
    }

    /// The same for a flow variable `[B,N+T·A]` that has `num_before` other values before the flattened chunk: those are left alone.
    pub(crate) fn after(&self, num_before: i64) -> Self {
        let behind = |x: &Tensor| x.flatten(1, 2).constant_pad_nd([num_before, 0]);
        Self {
            target: behind(&self.target),
            weight: behind(&self.weight.expand_as(&self.target)),
            max_weight: self.max_weight,
        }
    }

    /// The velocity at `x` and `time`, which is 1 at the noise, where the model says `velocity`.
    pub(crate) fn velocity(&self, x: &Tensor, velocity: &Tensor, time: f64) -> Tensor {
        let error = (&self.target - (x - velocity * time)) * &self.weight;
        velocity - error * self.factor(time)
    }

    /// The factor of the error at `time`, with τ = 1 − time: `min(max, (1−τ)/τ · ((1−τ)² + τ²)/(1−τ)²)`.
    fn factor(&self, time: f64) -> f64 {
        let tau = 1.0 - time;
        if tau <= 0.0 {
            return self.max_weight;
        }
        let variance = time.powi(2) / (time.powi(2) + tau.powi(2));
        (time / tau / variance).min(self.max_weight)
    }
}

/// One weight for each of `total` steps: 1 before `start`, 0 from `end` on.
fn prefix_weights(schedule: PrefixSchedule, start: usize, end: usize, total: usize) -> Vec<f64> {
    let between = |step: usize| {
        let linear = 1.0 - (step + 1 - start) as f64 / (end + 1 - start) as f64;
        match schedule {
            PrefixSchedule::Zeros => 0.0,
            PrefixSchedule::Ones => 1.0,
            PrefixSchedule::Linear => linear,
            PrefixSchedule::Exp => linear * linear.exp_m1() / (E - 1.0),
        }
    };
    let weight = |step: usize| match step {
        _ if step < start => 1.0,
        _ if step >= end => 0.0,
        _ => between(step),
    };
    (0..total).map(weight).collect()
}
