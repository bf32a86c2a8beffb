//! Where the model's random numbers come from.

use hlrp_torch::World;
use tch::{Device, Kind, Tensor};

/// A source of random draws. Training uses [`TorchDraws`] or, with other processes, [`WorldDraws`]; a test injects what it wants to see.
pub trait Draws {
    /// Standard normal numbers, float32 of `shape`.
    fn normal(&mut self, shape: &[i64], device: Device) -> Tensor;
    /// Standard normal numbers for a batch of this process, float32 of `shape` `[B, …]`.
    fn normal_of_batch(&mut self, shape: &[i64], device: Device) -> Tensor;
    /// The numbers 0 to `n` − 1 in random order, `int64 [n]`.
    fn permutation(&mut self, n: i64, device: Device) -> Tensor;
    /// `num` indices of `weights_K`, each drawn in proportion to its weight, `int64 [num]`.
    fn weighted(&mut self, weights_K: &Tensor, num: i64) -> Tensor;
}

/// Draws from the device's torch generator, whose state is part of every checkpoint.
pub struct TorchDraws;

impl Draws for TorchDraws {
    fn normal(&mut self, shape: &[i64], device: Device) -> Tensor {
        Tensor::randn(shape, (Kind::Float, device))
    }

    fn normal_of_batch(&mut self, shape: &[i64], device: Device) -> Tensor {
        self.normal(shape, device)
    }

    fn permutation(&mut self, n: i64, device: Device) -> Tensor {
        Tensor::randperm(n, (Kind::Int64, device))
    }

    fn weighted(&mut self, weights_K: &Tensor, num: i64) -> Tensor {
        weights_K.to_kind(Kind::Double).multinomial(num, true)
    }
}

/// As [`TorchDraws`], for one of several processes: all draw alike, for the global batch, and each takes its part. So a run draws the same for
/// each sample on any number of processes.
pub struct WorldDraws<'a>(pub &'a World);

impl Draws for WorldDraws<'_> {
    fn normal(&mut self, shape: &[i64], device: Device) -> Tensor {
        TorchDraws.normal(shape, device)
    }

    fn normal_of_batch(&mut self, shape: &[i64], device: Device) -> Tensor {
        self.0.own_rows(shape[0], |num_rows| TorchDraws.normal(&[&[num_rows][..], &shape[1..]].concat(), device))
    }

    fn permutation(&mut self, n: i64, device: Device) -> Tensor {
        TorchDraws.permutation(n, device)
    }

    fn weighted(&mut self, weights_K: &Tensor, num: i64) -> Tensor {
        TorchDraws.weighted(weights_K, num)
    }
}
