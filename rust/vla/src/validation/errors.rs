//! Errors of predictions, and of two baselines that do not look at the image.
//!
//! *Predict the mean*: always the mean of the validation targets, one for each step and dimension: the best that any constant can do, and
//! better than the mean of the training set could. *Repeat the last*: for actions, every step of the chunk is the action of the frame
//! before the present; for latent actions, the teacher's codes of the frame pair that ends at the present.
//!
//! Shape suffixes: B samples, T steps or slots, D dimensions.

use hlrp_torch::World;
use hlrp_track::metrics::{Curve, MetricSpec};
use hlrp_train::validation::shape_of_all;
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

/// Keeps the cosine of a zero vector finite.
const EPS: f64 = 1e-8;

/// Sums over samples, float64 on the device.
struct Sums {
    count_TD: Tensor,
    target_TD: Tensor,
    target_square_TD: Tensor,
    error_TD: Tensor,
    repeat_count_TD: Tensor,
    repeat_error_TD: Tensor,
    cosine: Tensor,
    num_cosines: Tensor,
}

impl Sums {
    /// Those of a process without a sample.
    fn zeros(shape_TD: &[i64], device: Device) -> Self {
        let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Double, device));
        Self {
            count_TD: zeros(shape_TD),
            target_TD: zeros(shape_TD),
            target_square_TD: zeros(shape_TD),
            error_TD: zeros(shape_TD),
            repeat_count_TD: zeros(shape_TD),
            repeat_error_TD: zeros(shape_TD),
            cosine: zeros(&[]),
            num_cosines: zeros(&[]),
        }
    }
}

/// The metrics of one kind of prediction with `num_dims` dimensions, as [`Errors::metrics`] returns them; `repeated` is what the
/// second baseline repeats.
pub(super) fn metrics(kind: &str, repeated: &str, num_dims: i64, curve: &Curve) -> Vec<MetricSpec> {
    let spec = |name: &str, label: String| MetricSpec::new(format!("val/{kind}_{name}"), label);
    let errors = [
        spec("mse", format!("{kind} error (MSE)")).lower_is_better().drawn_in(curve),
        spec("mean_baseline_mse", format!("{kind} error, always the mean")).drawn_in(curve),
        spec("repeat_baseline_mse", format!("{kind} error, {repeated} repeated")).drawn_in(curve),
        MetricSpec::detail(format!("val/{kind}_cosine")).higher_is_better(),
    ];
    let of_dims = (0..num_dims).map(|dim| MetricSpec::detail(format!("val/{kind}_mse_dim{dim}")).lower_is_better());
    errors.into_iter().chain(of_dims).collect()
}

/// Squared errors and cosines of one kind of prediction.
#[derive(Default)]
pub(super) struct Errors(Option<Sums>);

impl Errors {
    /// Adds predictions, what repeating would have predicted, and the truth, all `[B,T,D]`. `is_valid_BTD` is true for what has a target,
    /// `was_valid_BTD` for what has something to repeat: the baseline that repeats counts only where both are true. Their last dimension is 1
    /// where it is the same for all D.
    pub(super) fn add(
        &mut self,
        predicted_BTD: &Tensor,
        repeated_BTD: &Tensor,
        target_BTD: &Tensor,
        is_valid_BTD: &Tensor,
        was_valid_BTD: &Tensor,
    ) {
        let weight_BTD = is_valid_BTD.to_kind(Kind::Double);
        let both_valid_BTD = is_valid_BTD.logical_and(was_valid_BTD);
        let counted = |x_BTD: &Tensor, is_valid_BTD: &Tensor| {
            x_BTD.to_kind(Kind::Double).masked_fill(&is_valid_BTD.logical_not(), 0.0)
        };
        let [predicted, target] = [predicted_BTD, target_BTD].map(|x_BTD| counted(x_BTD, is_valid_BTD));
        let repeat_error = counted(&(repeated_BTD - target_BTD), &both_valid_BTD);
        let sum = |x_BTD: Tensor| x_BTD.sum_dim_intlist([0].as_slice(), false, Kind::Double);
        let dot_B = |a: &Tensor, b: &Tensor| (a * b).sum_dim_intlist([1, 2].as_slice(), false, Kind::Double);
        let lengths_B = (dot_B(&predicted, &predicted) * dot_B(&target, &target)).sqrt().clamp_min(EPS);
        let counts_B = is_valid_BTD.flatten(1, 2).any_dim(1, false).to_kind(Kind::Double);
        let new = Sums {
            count_TD: sum(weight_BTD.expand_as(&target)),
            target_TD: sum(target.shallow_clone()),
            target_square_TD: sum(target.square()),
            error_TD: sum((&predicted - &target).square()),
            repeat_count_TD: sum(both_valid_BTD.to_kind(Kind::Double).expand_as(&target)),
            repeat_error_TD: sum(repeat_error.square()),
            cosine: (dot_B(&predicted, &target) / lengths_B * &counts_B).sum(Kind::Double),
            num_cosines: counts_B.sum(Kind::Double),
        };
        self.0 = Some(match self.0.take() {
            None => new,
            Some(old) => Sums {
                count_TD: old.count_TD + new.count_TD,
                target_TD: old.target_TD + new.target_TD,
                target_square_TD: old.target_square_TD + new.target_square_TD,
                error_TD: old.error_TD + new.error_TD,
                repeat_count_TD: old.repeat_count_TD + new.repeat_count_TD,
                repeat_error_TD: old.repeat_error_TD + new.repeat_error_TD,
                cosine: old.cosine + new.cosine,
                num_cosines: old.num_cosines + new.num_cosines,
            },
        });
    }

    /// Mean squared errors of the policy and both baselines, the policy's per dimension, and the mean cosine, over the samples of all
    /// processes on `device`; empty when none of them added anything. Names begin with `val/<kind>_`.
    ///
    /// # Errors
    /// A process that is gone.
    pub(super) fn metrics(self, kind: &str, world: &World, device: Device) -> anyhow::Result<BTreeMap<String, f64>> {
        let Some(shape_TD) = shape_of_all(world, self.0.as_ref().map(|sums| &sums.count_TD))? else {
            return Ok(BTreeMap::new());
        };
        let sums = self.0.unwrap_or_else(|| Sums::zeros(&shape_TD, device));
        for sum in [
            &sums.count_TD,
            &sums.target_TD,
            &sums.target_square_TD,
            &sums.error_TD,
            &sums.repeat_count_TD,
            &sums.repeat_error_TD,
            &sums.cosine,
            &sums.num_cosines,
        ] {
            world.all_reduce(sum)?;
        }
        let total = |x: &Tensor| x.sum(Kind::Double).double_value(&[]);
        let count = total(&sums.count_TD).max(1.0);
        // Not below 0, where rounding takes the variance of a constant.
        let variance_TD = &sums.target_square_TD - sums.target_TD.square() / sums.count_TD.clamp_min(1.0);
        let constant_TD = variance_TD.clamp_min(0.0);
        let mut metrics = BTreeMap::from([
            (format!("val/{kind}_mse"), total(&sums.error_TD) / count),
            (format!("val/{kind}_mean_baseline_mse"), total(&constant_TD) / count),
            (
                format!("val/{kind}_repeat_baseline_mse"),
                total(&sums.repeat_error_TD) / total(&sums.repeat_count_TD).max(1.0),
            ),
            (format!("val/{kind}_cosine"), total(&sums.cosine) / total(&sums.num_cosines).max(1.0)),
        ]);
        for dim in 0..sums.error_TD.size()[1] {
            let of_dim = |x_TD: &Tensor| total(&x_TD.select(1, dim));
            let error = of_dim(&sums.error_TD) / of_dim(&sums.count_TD).max(1.0);
            metrics.insert(format!("val/{kind}_mse_dim{dim}"), error);
        }
        Ok(metrics)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::Errors;
    use hlrp_torch::World;
    use tch::Tensor;

    #[test]
    fn errors_and_baselines_of_three_samples_of_one_number() {
        let column = |values: [f32; 3]| Tensor::from_slice(&values).view([3, 1, 1]);
        let mut errors = Errors::default();
        let is_valid = Tensor::from_slice(&[true, true, false]).view([3, 1, 1]);
        let all_valid = is_valid.ones_like();
        // Targets 1 and 3 (mean 2), predicted 2 and 3, repeated 0 and 0; the third does not count, whatever it is.
        let unknown = f32::NAN;
        errors.add(
            &column([2.0, 3.0, unknown]),
            &column([0.0, 0.0, unknown]),
            &column([1.0, 3.0, unknown]),
            &is_valid,
            &all_valid,
        );
        let metrics = errors.metrics("x", &World::single(), tch::Device::Cpu).unwrap();
        assert_eq!(metrics["val/x_mse"], 0.5);
        assert_eq!(metrics["val/x_mse_dim0"], 0.5);
        assert_eq!(metrics["val/x_mean_baseline_mse"], 1.0);
        assert_eq!(metrics["val/x_repeat_baseline_mse"], 5.0);
        assert_eq!(metrics["val/x_cosine"], 1.0);
    }

    #[test]
    fn a_sample_without_a_past_counts_for_the_policy_alone() {
        let column = |values: [f32; 2]| Tensor::from_slice(&values).view([2, 1, 1]);
        let mut errors = Errors::default();
        let is_valid = Tensor::from_slice(&[true, true]).view([2, 1, 1]);
        let was_valid = Tensor::from_slice(&[false, true]).view([2, 1, 1]);
        errors.add(&column([2.0, 3.0]), &column([9.0, 0.0]), &column([1.0, 3.0]), &is_valid, &was_valid);
        let metrics = errors.metrics("x", &World::single(), tch::Device::Cpu).unwrap();
        assert_eq!((metrics["val/x_mse"], metrics["val/x_repeat_baseline_mse"]), (0.5, 9.0));
    }

    #[test]
    fn a_dimension_counts_for_the_samples_that_have_it() {
        let pairs = |values: [f32; 4]| Tensor::from_slice(&values).view([2, 1, 2]);
        let mut errors = Errors::default();
        let is_valid = Tensor::from_slice(&[true, true, true, false]).view([2, 1, 2]);
        let (predicted, target) = (pairs([2.0, 4.0, 3.0, f32::NAN]), pairs([1.0, 1.0, 3.0, f32::NAN]));
        errors.add(&predicted, &pairs([0.0; 4]), &target, &is_valid, &is_valid.ones_like());
        let metrics = errors.metrics("x", &World::single(), tch::Device::Cpu).unwrap();
        let found =
            ["mse", "mse_dim0", "mse_dim1", "repeat_baseline_mse"].map(|name| metrics[&format!("val/x_{name}")]);
        assert_eq!(found, [10.0 / 3.0, 0.5, 9.0, 11.0 / 3.0]);
    }
}
