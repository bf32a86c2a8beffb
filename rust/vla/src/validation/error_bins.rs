//! How the errors of predicted actions are distributed, dimension by dimension.
//!
//! Shape suffixes: B samples, T steps, A dimensions, K bins.

use hlrp_torch::World;
use hlrp_track::sinks::{Histogram, NamedHistogram};
use hlrp_train::validation::shape_of_all;
use tch::{Device, Kind, Tensor};

/// Bins between the limits.
const NUM_BINS: i64 = 60;
/// Largest error that has a bin of its own, in standard deviations of the action; larger ones are in the outermost bins.
const LIMIT: f64 = 3.0;

/// Counts `int64 [A,K]` of the errors in each bin, on the device.
#[derive(Default)]
pub(super) struct ErrorBins(Option<Tensor>);

impl ErrorBins {
    /// Adds normalised predictions and the truth `[B,T,A]`, where `is_valid_BTA` is true, whose last dimension may be 1.
    pub(super) fn add(&mut self, predicted_BTA: &Tensor, target_BTA: &Tensor, is_valid_BTA: &Tensor) {
        let error_BTA = predicted_BTA.to_kind(Kind::Float) - target_BTA.to_kind(Kind::Float);
        let position_BTA = (error_BTA + LIMIT) * (NUM_BINS as f64 / (2.0 * LIMIT));
        let bin_BTA = position_BTA
            .nan_to_num(0.0, None::<f64>, None::<f64>)
            .clamp(0.0, NUM_BINS as f64 - 0.5)
            .to_kind(Kind::Int64);
        let is_in_BTAK = bin_BTA.one_hot(NUM_BINS) * is_valid_BTA.unsqueeze(3).to_kind(Kind::Int64);
        let counts_AK = is_in_BTAK.sum_dim_intlist([0, 1].as_slice(), false, Kind::Int64);
        self.0 = Some(match self.0.take() {
            None => counts_AK,
            Some(known_AK) => known_AK + counts_AK,
        });
    }

    /// A histogram of each dimension, over all processes, of which some may have no sample; none without actions.
    ///
    /// # Errors
    /// A process that is gone.
    pub(super) fn histograms(self, world: &World, device: Device) -> anyhow::Result<Vec<NamedHistogram>> {
        let Some(shape_AK) = shape_of_all(world, self.0.as_ref())? else { return Ok(Vec::new()) };
        let counts_AK = self.0.unwrap_or_else(|| Tensor::zeros(&shape_AK, (Kind::Int64, device)));
        world.all_reduce(&counts_AK)?;
        let counts = Vec::<i64>::try_from(counts_AK.to_device(Device::Cpu).view([-1]))?;
        let counts: Vec<u64> = counts.into_iter().map(u64::try_from).collect::<Result<_, _>>()?;
        let of_dims = counts.chunks(usize::try_from(NUM_BINS)?).enumerate();
        let named = of_dims.map(|(dim, counts)| NamedHistogram {
            name: format!("val/action_error_dim{dim}"),
            histogram: Histogram::new(counts, -LIMIT, LIMIT),
        });
        Ok(named.collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;

    #[test]
    fn errors_of_valid_steps_are_counted_by_dimension() {
        let target_BTA = Tensor::zeros([1, 3, 2], (Kind::Float, Device::Cpu));
        let predicted_BTA = Tensor::from_slice(&[0.05_f32, -9.0, 0.05, 9.0, 0.05, 0.0]).view([1, 3, 2]);
        let is_valid_BT = Tensor::from_slice(&[true, true, false]).view([1, 3, 1]);
        let mut bins = ErrorBins::default();
        bins.add(&predicted_BTA, &target_BTA, &is_valid_BT);
        bins.add(&predicted_BTA, &target_BTA, &is_valid_BT);
        let found = bins.histograms(&World::single(), Device::Cpu).unwrap();
        assert_eq!(
            found.iter().map(|named| named.name.as_str()).collect::<Vec<_>>(),
            ["val/action_error_dim0", "val/action_error_dim1"]
        );
        let [first, second] = [0, 1].map(|dim| found[dim].histogram.counts());
        assert_eq!((first[30], first.iter().sum::<u64>()), (4, 4));
        assert_eq!((second[0], second[59], second.iter().sum::<u64>()), (2, 2, 4));
    }
}
