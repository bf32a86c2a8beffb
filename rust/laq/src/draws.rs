//! Where the model's random numbers come from.

use tch::{Device, Kind, Tensor};

/// A source of random draws. Training uses [`TorchDraws`]; a test injects what it wants to see.
pub trait Draws {
    /// Standard normal numbers, float32 of `shape`.
    fn normal(&mut self, shape: &[i64], device: Device) -> Tensor;
    /// The numbers 0 to `n` − 1 in random order, `int64 [n]`.
    fn permutation(&mut self, n: i64, device: Device) -> Tensor;
}

/// Draws from the device's torch generator, whose state is part of every checkpoint.
pub struct TorchDraws;

impl Draws for TorchDraws {
    fn normal(&mut self, shape: &[i64], device: Device) -> Tensor {
        Tensor::randn(shape, (Kind::Float, device))
    }

    fn permutation(&mut self, n: i64, device: Device) -> Tensor {
        Tensor::randperm(n, (Kind::Int64, device))
    }
}
