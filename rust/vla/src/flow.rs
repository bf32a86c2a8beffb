//! Flow matching: from noise (time 1) to a target (time 0) along a straight line.
//!
//! Training picks a time t and noise e, shows the model `x = t·e + (1 − t)·target` and asks for the velocity `u = e − target`
//! (Lipman et al. 2023, in the direction of π0). Sampling starts at noise and walks back in equal Euler steps. Times, noise and losses
//! are float32 under any precision; the time embedding is computed in float64.
//!
//! Shape suffixes: B samples, S steps of the flow variable, D its width.

use crate::VlaError;
use serde::{Deserialize, Serialize};
use std::f64::consts::TAU;
use tch::{Device, Kind, Tensor};

/// Times are drawn from `TIME_OFFSET + TIME_SPAN·Beta`: never exactly at the target.
const TIME_SPAN: f64 = 0.999;
const TIME_OFFSET: f64 = 0.001;

/// Constants of the flow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowConfig {
    /// Euler steps of a sample.
    pub num_steps: i64,
    /// Shortest period of the time embedding.
    pub min_period: f64,
    /// Longest period of the time embedding.
    pub max_period: f64,
    /// First parameter of the Beta distribution of training times.
    pub time_beta_alpha: f64,
    /// Second parameter.
    pub time_beta_beta: f64,
}

impl FlowConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// No step, periods out of order, or a Beta distribution that does not exist.
    pub fn check(&self) -> Result<(), VlaError> {
        let hint = "take 10 steps, periods 0.004 and 4.0, and Beta(1.5, 1.0) unless you know better";
        if self.num_steps < 1 {
            return Err(VlaError::config(
                "flow.num_steps",
                format!("{} is not a number of steps", self.num_steps),
                hint,
            ));
        }
        if !(self.min_period > 0.0 && self.min_period < self.max_period && self.max_period.is_finite()) {
            let problem = format!("0 < {} < {} does not hold", self.min_period, self.max_period);
            return Err(VlaError::config("flow.min_period", problem, hint));
        }
        if !(self.time_beta_alpha > 0.0 && self.time_beta_beta > 0.0) {
            let problem = format!("Beta({}, {}) does not exist", self.time_beta_alpha, self.time_beta_beta);
            return Err(VlaError::config("flow.time_beta_alpha", problem, hint));
        }
        Ok(())
    }

    /// Sine and cosine features `[B,dim]` float32 of times `[B]`, periods from `min_period` to `max_period` on a logarithmic scale.
    ///
    /// `dim` is even.
    pub fn embed_time(&self, time_B: &Tensor, dim: i64) -> Tensor {
        assert!(dim % 2 == 0, "a time embedding has as many sines as cosines");
        let fraction = Tensor::linspace(0.0, 1.0, dim / 2, (Kind::Double, time_B.device()));
        let period = ((self.max_period / self.min_period).ln() * fraction).exp() * self.min_period;
        let angle_BD = time_B.to_kind(Kind::Double).unsqueeze(1) * (period.reciprocal() * TAU).unsqueeze(0);
        Tensor::cat(&[angle_BD.sin(), angle_BD.cos()], 1).to_kind(Kind::Float)
    }

    /// Walks from noise at time 1 to a sample at time 0; `velocity(x, time_B)` is the model.
    ///
    /// # Errors
    /// Whatever `velocity` returns.
    pub fn integrate<E>(
        &self,
        noise: &Tensor,
        mut velocity: impl FnMut(&Tensor, &Tensor) -> Result<Tensor, E>,
    ) -> Result<Tensor, E> {
        let num_samples = noise.size()[0];
        let step = -1.0 / self.num_steps as f64;
        (0..self.num_steps).try_fold(noise.shallow_clone(), |x, index| {
            let time_B = Tensor::full([num_samples], 1.0 + index as f64 * step, (Kind::Float, noise.device()));
            let velocity = velocity(&x, &time_B)?;
            Ok(x + velocity * step)
        })
    }
}

/// A point on the way from noise to target, and where it is heading.
pub struct FlowPoint {
    /// What the model sees.
    pub x: Tensor,
    /// What it should predict.
    pub velocity: Tensor,
    /// `[B]` time.
    pub time_B: Tensor,
}

impl FlowPoint {
    /// The point at `time_B` between `noise` and `target`, both `[B,…]` float32.
    pub fn new(target: &Tensor, noise: &Tensor, time_B: &Tensor) -> Self {
        let mut shape = vec![1; target.dim()];
        shape[0] = -1;
        let time = time_B.view(shape.as_slice());
        let x = &time * noise + (-&time + 1.0) * target;
        Self { x, velocity: noise - target, time_B: time_B.shallow_clone() }
    }
}

/// Where noise and times come from. Training and sampling use [`TorchFlowDraws`]; a test injects what it wants to see.
pub trait FlowDraws {
    /// Standard normal numbers, float32 of `shape`.
    fn noise(&mut self, shape: &[i64], device: Device) -> Tensor;
    /// Training times `[B]` float32 in (0, 1].
    fn time(&mut self, num_samples: i64, flow: &FlowConfig, device: Device) -> Tensor;
}

/// Draws from the device's torch generator, whose state is part of every checkpoint.
pub struct TorchFlowDraws;

impl FlowDraws for TorchFlowDraws {
    fn noise(&mut self, shape: &[i64], device: Device) -> Tensor {
        Tensor::randn(shape, (Kind::Float, device))
    }

    fn time(&mut self, num_samples: i64, flow: &FlowConfig, device: Device) -> Tensor {
        // A Beta variable is the first component of a Dirichlet variable of two.
        let concentration = Tensor::from_slice(&[flow.time_beta_alpha, flow.time_beta_beta]).to_kind(Kind::Float);
        let concentration_B2 =
            concentration.unsqueeze(0).expand([num_samples, 2], false).contiguous().to_device(device);
        Tensor::internal_sample_dirichlet(&concentration_B2).select(1, 0) * TIME_SPAN + TIME_OFFSET
    }
}
