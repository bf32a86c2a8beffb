//! A running mean square of what a decoder predicts: its root is the unit of the prediction.

use hlrp_nn::Scope;
use hlrp_torch::{TorchError, World};
use tch::{Device, Kind, Tensor, no_grad};

/// Fraction of the old mean square per step, once enough steps were seen.
const DECAY: f64 = 0.999;

/// Float scalars on the device, saved in every checkpoint.
pub(super) struct RunningSquare {
    mean_square: Tensor,
    num_updates: Tensor,
    least: f64,
}

impl RunningSquare {
    /// A root of 1 until the first update; `least` is the smallest root.
    pub(super) fn new(scope: &Scope<'_>, least: f64) -> Self {
        let options = (Kind::Float, Device::Cpu);
        Self {
            mean_square: scope.buffer("mean_square", &Tensor::ones([], options)),
            num_updates: scope.buffer("num_updates", &Tensor::zeros([], options)),
            least,
        }
    }

    /// Adds values of all processes, without waiting for the device. The first updates weigh all steps alike.
    ///
    /// # Errors
    /// Another process of `world` is gone.
    pub(super) fn update(&self, values: &Tensor, world: &World) -> Result<(), TorchError> {
        no_grad(|| {
            let sum = values.square().sum(Kind::Double);
            let count = sum.full_like(values.numel() as f64);
            world.all_reduce(&sum)?;
            world.all_reduce(&count)?;
            let _ = self.num_updates.shallow_clone().g_add_scalar_(1.0);
            let weight = self.num_updates.reciprocal().clamp_min(1.0 - DECAY);
            let step = ((sum / count).to_kind(Kind::Float) - &self.mean_square) * weight;
            let _ = self.mean_square.shallow_clone().g_add_(&step);
            Ok(())
        })
    }

    /// Root of the mean square, a scalar without gradient.
    pub(super) fn root(&self) -> Tensor {
        no_grad(|| self.mean_square.sqrt().clamp_min(self.least))
    }
}
