//! How well the head predicts the relative actions of held-out episodes.
//!
//! Shape suffixes: B samples, S code slots, Q width of a code vector, A dimensions of the action.

use super::network::LabelNetwork;
use hlrp_torch::World;
use hlrp_track::metrics::{Curve, MetricSpec};
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor, no_grad};

/// Names of the metrics; in training they begin with `train/`.
const MSE: &str = "val/label_mse";
const R2: &str = "val/label_r2";
/// The variance of a dimension, in units of the labelled pairs, below which it does not vary.
const MIN_VARIANCE: f64 = 1e-9;

/// Sums over the pairs of a validation.
pub(crate) struct Score<'a> {
    network: &'a LabelNetwork,
    /// Float64 `[4,A]`: 1, squared error, target, squared target.
    sums_4A: Tensor,
}

impl<'a> Score<'a> {
    /// Of no pair yet, on `device`.
    pub(crate) fn new(network: &'a LabelNetwork, device: Device) -> Self {
        Self { network, sums_4A: Tensor::zeros([4, network.action_dim()], (Kind::Double, device)) }
    }

    /// Adds pairs with the vectors `[B,S,Q]` and the relative actions `actions_BA`.
    pub(crate) fn add(&mut self, vectors_BSQ: &Tensor, actions_BA: &Tensor) {
        no_grad(|| {
            let (error_BA, target_BA) = self.network.error(vectors_BSQ, actions_BA);
            let rows = [target_BA.ones_like(), error_BA.square(), target_BA.shallow_clone(), target_BA.square()];
            let sums = rows.map(|row_BA| row_BA.sum_dim_intlist([0].as_slice(), false, Kind::Double));
            self.sums_4A = &self.sums_4A + Tensor::stack(&sums, 0);
        });
    }

    /// Mean squared error over pairs and dimensions, and the mean R² of the dimensions that vary, over what all processes added.
    ///
    /// # Errors
    /// Another process is gone.
    pub(crate) fn metrics(self, world: &World) -> anyhow::Result<BTreeMap<String, f64>> {
        world.all_reduce(&self.sums_4A)?;
        let sums = Vec::<f64>::try_from(self.sums_4A.to_device(Device::Cpu).reshape([-1]))?;
        let rows: Vec<&[f64]> = sums.chunks(sums.len() / 4).collect();
        let [counts, errors, targets, squares] = rows[..] else { anyhow::bail!("four rows of sums") };
        let mse = errors.iter().sum::<f64>() / counts.iter().sum::<f64>().max(1.0);
        let deviations =
            counts.iter().zip(targets).zip(squares).map(|((n, sum), square)| square - sum * sum / n.max(1.0));
        let is_varying = |deviation: f64| deviation > MIN_VARIANCE * counts[0];
        let r2: Vec<f64> = errors
            .iter()
            .zip(deviations)
            .filter(|(_, deviation)| is_varying(*deviation))
            .map(|(error, deviation)| 1.0 - error / deviation)
            .collect();
        let mean_r2 = (!r2.is_empty()).then(|| r2.iter().sum::<f64>() / r2.len() as f64);
        Ok([(MSE, Some(mse)), (R2, mean_r2)].into_iter().filter_map(|(name, x)| Some((name.to_owned(), x?))).collect())
    }
}

/// The metrics of the head, in training and validation.
pub(crate) fn specs() -> [MetricSpec; 3] {
    let curve = Curve::new("label_mse.png", "Actions by the label head", "mean squared error");
    [
        MetricSpec::detail("train/label_mse").drawn_in(&curve),
        MetricSpec::detail(MSE).lower_is_better().drawn_in(&curve),
        MetricSpec::new(R2, "R² of actions, by the label head").higher_is_better(),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;
    use hlrp_nn::Store;
    use hlrp_torch::rng;

    #[test]
    fn batches_of_any_size_have_the_score_of_all_pairs() {
        let store = Store::new(Device::Cpu);
        let (network, vectors, actions) = rng::seeded(1, || {
            let network = LabelNetwork::new(&store.root(), 4, &[], 3);
            let randn = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
            (network, randn(&[10, 2, 2]), randn(&[10, 3]) * 2.0)
        })
        .unwrap();
        let _ = actions.select(1, 2).fill_(4.0); // a dimension that does not vary has no R²
        let world = World::single();
        no_grad(|| network.loss(&vectors, &actions, &world)).unwrap();
        let found = |sizes: &[i64]| {
            let mut score = Score::new(&network, Device::Cpu);
            let parts = [&vectors, &actions].map(|rows| rows.split_with_sizes(sizes, 0));
            parts[0].iter().zip(&parts[1]).for_each(|(vectors, actions)| score.add(vectors, actions));
            score.metrics(&world).unwrap()
        };
        let (whole, parts) = (found(&[10]), found(&[3, 7]));
        let (error, target) = no_grad(|| network.error(&vectors, &actions));
        let mse = error.square().mean(Kind::Double).double_value(&[]);
        let r2 = |dim: i64| {
            let (error, target) =
                (error.select(1, dim).to_kind(Kind::Double), target.select(1, dim).to_kind(Kind::Double));
            1.0 - error.square().mean(Kind::Double).double_value(&[]) / target.var(false).double_value(&[])
        };
        for found in [whole, parts] {
            assert!((found[MSE] - mse).abs() < 1e-6, "{found:?} {mse}");
            assert!((found[R2] - (r2(0) + r2(1)) / 2.0).abs() < 1e-5, "{found:?}");
        }
    }
}
