//! From vectors to relative actions: a linear map or a small network, and the unit of its targets.
//!
//! Shape suffixes: B samples, S code slots, Q width of a code vector, A dimensions of the action.

use crate::quantizers::in_float32;
use hlrp_nn::{Linear, Scope};
use hlrp_torch::{TorchError, World};
use tch::{Device, Kind, Tensor, no_grad};

/// A dimension that varies less has the unit 1.
const MIN_STD: f64 = 1e-6;

/// Predicts relative actions, in units of their std over the labelled pairs.
pub(crate) struct LabelNetwork {
    layers: Vec<Linear>,
    unit: Unit,
    device: Device,
}

/// Loss of a batch of labelled pairs.
pub(crate) struct LabelLoss {
    /// Mean squared error over pairs and dimensions, float32 scalar.
    pub(crate) mse: Tensor,
    /// The part of the variance of the batch of all processes that is predicted, over all dimensions.
    pub(crate) r2: Tensor,
}

impl LabelNetwork {
    /// With fresh weights in `scope`: from all slots of `vector_dim` numbers together, over hidden layers, to `action_dim` numbers.
    pub(crate) fn new(scope: &Scope<'_>, vector_dim: i64, hidden_dims: &[i64], action_dim: i64) -> Self {
        let dims: Vec<i64> = [&[vector_dim][..], hidden_dims, &[action_dim]].concat();
        let layers = scope.child("layers");
        let layer = |(index, pair): (usize, &[i64])| Linear::new(&layers.child(index), pair[0], pair[1], true);
        Self {
            layers: dims.windows(2).enumerate().map(layer).collect(),
            unit: Unit::new(&scope.child("unit"), action_dim),
            device: scope.device(),
        }
    }

    /// Dimensions of an action.
    pub(crate) fn action_dim(&self) -> i64 {
        self.unit.sum_A.size()[0]
    }

    /// Loss of vectors `[B,S,Q]` whose pairs have the relative actions `actions_BA`, which the unit learns from first.
    ///
    /// # Errors
    /// Another process of `world` is gone.
    pub(crate) fn loss(
        &self,
        vectors_BSQ: &Tensor,
        actions_BA: &Tensor,
        world: &World,
    ) -> Result<LabelLoss, TorchError> {
        self.unit.update(actions_BA, world)?;
        let (error_BA, target_BA) = self.error(vectors_BSQ, actions_BA);
        let mse = error_BA.square().mean(Kind::Float);
        let centred_BA = &target_BA - world.mean(&target_BA.mean_dim([0].as_slice(), true, Kind::Float))?;
        let variance = world.mean(&centred_BA.square().mean(Kind::Float))?.clamp_min(MIN_STD);
        let r2 = 1.0 - world.mean(&mse)? / variance;
        Ok(LabelLoss { mse, r2 })
    }

    /// Errors of the predictions and the targets, both float32 `[B,A]` in units of the std.
    pub(super) fn error(&self, vectors_BSQ: &Tensor, actions_BA: &Tensor) -> (Tensor, Tensor) {
        in_float32(self.device, || {
            let target_BA = self.unit.standardised(actions_BA);
            let mut x = vectors_BSQ.flatten(1, 2).to_kind(Kind::Float);
            for (index, layer) in self.layers.iter().enumerate() {
                if index > 0 {
                    x = x.relu();
                }
                x = layer.forward(&x);
            }
            (x - &target_BA, target_BA)
        })
    }
}

/// Mean and std of the relative actions of all labelled pairs so far, saved in every checkpoint. No other action is part of it.
struct Unit {
    /// Float64 scalar: pairs so far.
    count: Tensor,
    sum_A: Tensor,
    square_sum_A: Tensor,
}

impl Unit {
    fn new(scope: &Scope<'_>, action_dim: i64) -> Self {
        let zeros = |name: &str, shape: &[i64]| scope.buffer(name, &Tensor::zeros(shape, (Kind::Double, Device::Cpu)));
        Self {
            count: zeros("count", &[]),
            sum_A: zeros("sum", &[action_dim]),
            square_sum_A: zeros("square_sum", &[action_dim]),
        }
    }

    /// Adds the pairs of all processes, without waiting for the device.
    ///
    /// # Errors
    /// Another process of `world` is gone.
    fn update(&self, actions_BA: &Tensor, world: &World) -> Result<(), TorchError> {
        no_grad(|| {
            let actions_BA = actions_BA.to_kind(Kind::Double);
            let total = |x_BA: &Tensor| x_BA.sum_dim_intlist([0].as_slice(), false, Kind::Double);
            let count = self.count.full_like(actions_BA.size()[0] as f64);
            let added = [
                (&self.count, count),
                (&self.sum_A, total(&actions_BA)),
                (&self.square_sum_A, total(&actions_BA.square())),
            ];
            for (sum, added) in added {
                world.all_reduce(&added)?;
                let _ = sum.shallow_clone().g_add_(&added);
            }
            Ok(())
        })
    }

    /// Actions `[B,A]` with mean 0 and std 1 over the pairs so far, float32 without gradient.
    fn standardised(&self, actions_BA: &Tensor) -> Tensor {
        no_grad(|| {
            let count = self.count.clamp_min(1.0);
            let mean_A = &self.sum_A / &count;
            let std_A = (&self.square_sum_A / &count - mean_A.square()).clamp_min(0.0).sqrt();
            let unit_A = std_A.where_self(&std_A.gt(MIN_STD), &std_A.ones_like());
            ((actions_BA.to_kind(Kind::Double) - mean_A) / unit_A).to_kind(Kind::Float)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;
    use hlrp_nn::Store;
    use hlrp_torch::rng;

    fn network(hidden_dims: &[i64]) -> (Store, LabelNetwork) {
        let store = Store::new(Device::Cpu);
        let network = rng::seeded(3, || LabelNetwork::new(&store.root(), 6, hidden_dims, 2)).unwrap();
        (store, network)
    }

    fn value(x: &Tensor) -> f64 {
        x.double_value(&[])
    }

    #[test]
    fn the_loss_is_in_units_of_the_labelled_pairs_so_far() {
        let (_, network) = network(&[]);
        let vectors = Tensor::zeros([4, 2, 3], (Kind::Float, Device::Cpu));
        let actions = Tensor::from_slice(&[1.0f32, 5.0, 3.0, 5.0, 5.0, 5.0, 7.0, 5.0]).view([4, 2]);
        for scale in [1.0, 1000.0] {
            let (_, network) = self::network(&[]);
            let LabelLoss { mse, r2 } = network.loss(&vectors, &(&actions * scale), &World::single()).unwrap();
            let (_, target) = network.error(&vectors, &(&actions * scale));
            let first = target.select(1, 0);
            assert!((value(&first.mean(Kind::Double))).abs() < 1e-6);
            assert!((value(&first.square().mean(Kind::Double)) - 1.0).abs() < 1e-6, "the first dimension varies");
            assert_eq!(value(&target.select(1, 1).abs().max()), 0.0, "the second is always 5");
            // With vectors of 0 a linear map predicts its bias for every pair.
            assert!(value(&r2) < 0.0 && value(&mse) >= 0.5, "{mse:?} {r2:?}");
        }
        // Two batches have the unit of both together.
        for half in actions.chunk(2, 0) {
            network.loss(&vectors.narrow(0, 0, 2), &half, &World::single()).unwrap();
        }
        let (_, target) = network.error(&vectors, &actions);
        assert!((value(&target.select(1, 0).square().mean(Kind::Double)) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn its_gradient_reaches_vectors_and_weights_and_training_lowers_it() {
        for hidden_dims in [&[][..], &[16, 8]] {
            let (store, network) = network(hidden_dims);
            assert_eq!(store.parameters().len(), 2 * (hidden_dims.len() + 1));
            let vectors = rng::seeded(4, || Tensor::randn([32, 2, 3], (Kind::Float, Device::Cpu))).unwrap();
            let vectors = vectors.set_requires_grad(true);
            let actions = no_grad(|| vectors.flatten(1, 2).narrow(1, 1, 2) * 3.0 + 1.0);
            let mut losses = Vec::new();
            for _ in 0..300 {
                let LabelLoss { mse, .. } = network.loss(&vectors, &actions, &World::single()).unwrap();
                losses.push(value(&mse));
                mse.backward();
                for (_, parameter) in store.parameters() {
                    no_grad(|| drop(parameter.shallow_clone().g_sub_(&(parameter.grad() * 0.1))));
                    let _ = parameter.grad().zero_();
                }
            }
            assert!(losses[299] < 0.1 * losses[0], "{hidden_dims:?}: {} then {}", losses[0], losses[299]);
            assert!(value(&vectors.grad().abs().sum(Kind::Double)) > 0.0);
        }
    }
}
