//! Flow matching: from noise (time 1) to a target (time 0) along a straight line.
//!
//! Training picks a time t and noise e, shows the model `x = t·e + (1 − t)·target` and asks for the velocity `u = e − target`
//! (Lipman et al. 2023, in the direction of π0). Sampling starts at noise and walks back in equal Euler steps. Times, noise and losses
//! are float32 under any precision; the time embedding is computed in float64.
//!
//! Shape suffixes: B samples, S steps of the flow variable, D its width.

use crate::chunking::Guidance;
use hlrp_nn::Pass;
use hlrp_schema::policy::FlowSpec;
use hlrp_torch::{TorchError, World};
use std::f64::consts::TAU;
use tch::{Device, Kind, Tensor};

/// Times are drawn from `TIME_OFFSET + TIME_SPAN·Beta`: never exactly at the target.
const TIME_SPAN: f64 = 0.999;
const TIME_OFFSET: f64 = 0.001;

/// Sine and cosine features `[B,dim]` float32 of times `[B]`, periods from `min_period` to `max_period` on a logarithmic scale.
///
/// `dim` is even.
pub fn embed_time(flow: &FlowSpec, time_B: &Tensor, dim: i64) -> Tensor {
    debug_assert!(dim % 2 == 0, "a time embedding has as many sines as cosines");
    let fraction = Tensor::linspace(0.0, 1.0, dim / 2, (Kind::Double, time_B.device()));
    let period = ((flow.max_period / flow.min_period).ln() * fraction).exp() * flow.min_period;
    let angle_BD = time_B.to_kind(Kind::Double).unsqueeze(1) * (period.reciprocal() * TAU).unsqueeze(0);
    Tensor::cat(&[angle_BD.sin(), angle_BD.cos()], 1).to_kind(Kind::Float)
}

/// Walks from noise at time 1 to a sample at time 0; `velocity(x, time_B, pass)` is the model, and `guidance` draws it to where a chunk has to
/// begin. Each step is recorded, what the model records in it is not.
///
/// # Errors
/// Whatever `velocity` returns.
pub fn integrate<E>(
    flow: &FlowSpec,
    noise: &Tensor,
    guidance: Option<&Guidance>,
    pass: &Pass<'_>,
    mut velocity: impl FnMut(&Tensor, &Tensor, &Pass<'_>) -> Result<Tensor, E>,
) -> Result<Tensor, E> {
    let num_samples = noise.size()[0];
    let step = -1.0 / flow.num_steps as f64;
    let sample = (0..flow.num_steps).try_fold(noise.shallow_clone(), |x, index| {
        let time = 1.0 + index as f64 * step;
        let time_B = Tensor::full([num_samples], time, (Kind::Float, noise.device()));
        let of_model = velocity(&x, &time_B, &Pass { trace: None, ..*pass })?;
        let velocity = match guidance {
            Some(guidance) => guidance.velocity(&x, &of_model, time),
            None => of_model,
        };
        pass.record(|| "step.time".into(), &time_B);
        pass.record(|| "step.x".into(), &x);
        pass.record(|| "step.velocity".into(), &velocity);
        Ok(x + velocity * step)
    })?;
    pass.record(|| "sample".into(), &sample);
    Ok(sample)
}

/// Squared error, shaped as `target`, of the velocity that the model predicts at a random point between noise and `target`.
///
/// # Errors
/// Whatever `velocity` returns.
pub(crate) fn squared_error<E>(
    flow: &FlowSpec,
    target: &Tensor,
    noise: &mut dyn FlowNoise,
    velocity: impl FnOnce(&FlowPoint) -> Result<Tensor, E>,
) -> Result<Tensor, E> {
    let device = target.device();
    let normal = noise.normal(&target.size(), device);
    let time_B = noise.time(target.size()[0], flow, device);
    let point = FlowPoint::new(&target.to_kind(Kind::Float), &normal, &time_B);
    Ok((velocity(&point)? - &point.velocity).square())
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

/// Where noise and times come from. Training uses [`WorldNoise`], a policy [`TorchNoise`]; a test injects what it wants to see.
pub trait FlowNoise {
    /// Standard normal values, float32 of `shape`.
    fn normal(&mut self, shape: &[i64], device: Device) -> Tensor;
    /// Training times `[B]` float32 in (0, 1].
    fn time(&mut self, num_samples: i64, flow: &FlowSpec, device: Device) -> Tensor;
    /// `bool [B]`: true for a sample with probability 1 − `dropout`.
    fn keep(&mut self, num_samples: i64, dropout: f64, device: Device) -> Tensor {
        Tensor::rand([num_samples], (Kind::Float, device)).ge(dropout)
    }
}

/// Noise and times of this process's part of a global batch: a run draws the same for each sample on any number of processes, and their
/// generators stay alike.
pub struct WorldNoise<'a> {
    world: &'a World,
    /// Samples of all processes; none where each has as many as this one.
    num_of_all: Option<i64>,
}

impl<'a> WorldNoise<'a> {
    /// For batches of which all processes have equal parts.
    pub fn new(world: &'a World) -> Self {
        Self { world, num_of_all: None }
    }

    /// For a batch of which this process has `num_own` samples; all processes ask at the same time. None where no process has a sample.
    ///
    /// # Errors
    /// Another process is gone.
    pub fn of_batch(world: &'a World, num_own: usize) -> Result<Option<Self>, TorchError> {
        let num_of_all = Tensor::from(num_own as i64);
        world.all_reduce(&num_of_all)?;
        let num_of_all = num_of_all.int64_value(&[]);
        Ok((num_of_all > 0).then_some(Self { world, num_of_all: Some(num_of_all) }))
    }

    fn own_rows(&self, num_own: i64, draw: impl FnOnce(i64) -> Tensor) -> Tensor {
        match self.num_of_all {
            Some(num_rows) => self.world.own_rows_of(num_rows, draw),
            None => self.world.own_rows(num_own, draw),
        }
    }
}

impl FlowNoise for WorldNoise<'_> {
    fn normal(&mut self, shape: &[i64], device: Device) -> Tensor {
        self.own_rows(shape[0], |num_rows| TorchNoise.normal(&[&[num_rows][..], &shape[1..]].concat(), device))
    }

    fn time(&mut self, num_samples: i64, flow: &FlowSpec, device: Device) -> Tensor {
        self.own_rows(num_samples, |num_rows| TorchNoise.time(num_rows, flow, device))
    }

    fn keep(&mut self, num_samples: i64, dropout: f64, device: Device) -> Tensor {
        self.own_rows(num_samples, |num_rows| TorchNoise.keep(num_rows, dropout, device))
    }
}

/// Noise and times from the device's torch generator, whose state is part of every checkpoint.
pub struct TorchNoise;

impl FlowNoise for TorchNoise {
    fn normal(&mut self, shape: &[i64], device: Device) -> Tensor {
        Tensor::randn(shape, (Kind::Float, device))
    }

    fn time(&mut self, num_samples: i64, flow: &FlowSpec, device: Device) -> Tensor {
        // A Beta variable is the first component of a Dirichlet variable of two.
        let column_B = |concentration: f64| Tensor::full([num_samples], concentration, (Kind::Float, device));
        let concentration_B2 = Tensor::stack(&[flow.time_beta_alpha, flow.time_beta_beta].map(column_B), 1);
        Tensor::internal_sample_dirichlet(&concentration_B2).select(1, 0) * TIME_SPAN + TIME_OFFSET
    }
}
