//! Running mean and variance, on the device, saved in every checkpoint. Only training updates them.

use hlrp_nn::Scope;
use hlrp_torch::{TorchError, World};
use tch::{Device, Kind, Tensor, no_grad};

/// Mean and variance over samples. The first updates weigh all samples alike; after `1 / (1 − decay)` of them the old
/// ones are forgotten.
pub(crate) struct RunningMoments {
    mean: Tensor,
    variance: Tensor,
    /// Float scalar: updates so far.
    num_updates: Tensor,
    decay: f64,
}

impl RunningMoments {
    /// Mean 0 and variance 1 of values of `shape`, in `scope`; `decay` is the fraction of the old average at an update.
    pub(crate) fn new(scope: &Scope<'_>, shape: &[i64], decay: f64) -> Self {
        let options = (Kind::Float, Device::Cpu);
        Self {
            mean: scope.buffer("mean", &Tensor::zeros(shape, options)),
            variance: scope.buffer("variance", &Tensor::ones(shape, options)),
            num_updates: scope.buffer("num_updates", &Tensor::zeros([], options)),
            decay,
        }
    }

    /// Adds samples `[N, …]` of all processes, without waiting for the device.
    ///
    /// # Errors
    /// Another process is gone.
    pub(crate) fn update(&self, samples: &Tensor, world: &World) -> Result<(), TorchError> {
        no_grad(|| {
            let samples = samples.detach().to_kind(Kind::Double);
            let total = |x: &Tensor| x.sum_dim_intlist([0].as_slice(), false, Kind::Double);
            let count = Tensor::full([], samples.size()[0] as f64, (Kind::Double, samples.device()));
            let (sum, sum_of_squares) = (total(&samples), total(&samples.square()));
            for part in [&count, &sum, &sum_of_squares] {
                world.all_reduce(part)?;
            }
            let mean = sum / &count;
            let variance = (sum_of_squares / count - mean.square()).clamp_min(0.0);
            let _ = self.num_updates.shallow_clone().g_add_scalar_(1.0);
            let weight = self.num_updates.reciprocal().clamp_min(1.0 - self.decay);
            for (running, new) in [(&self.mean, mean), (&self.variance, variance)] {
                let step = (new.to_kind(Kind::Float) - running) * &weight;
                let _ = running.shallow_clone().g_add_(&step);
            }
            Ok(())
        })
    }

    /// Mean.
    pub(crate) fn mean(&self) -> &Tensor {
        &self.mean
    }

    /// Variance, 0 or more.
    pub(crate) fn variance(&self) -> &Tensor {
        &self.variance
    }
}
