//! Signal to noise: the variance of the changes, divided by their mean squared distance to what the decoders see. About 1 = the codes say nothing
//! about the changes.
//!
//! Shape suffixes: B samples, S code slots, Q width of a code vector, N sums.

use crate::dims::Dims;
use hlrp_torch::{TorchError, World};
use tch::{Device, Kind, Tensor, no_grad};

/// Keeps the ratio finite.
const MIN_NOISE: f64 = 1e-12;

/// That of the batches of all processes, a scalar on the device: their changes `[B,S,Q]`, and what the decoders see of them.
///
/// # Errors
/// Another process is gone.
pub(super) fn of_batch(change_BSQ: &Tensor, vectors_BSQ: &Tensor, world: &World) -> Result<Tensor, TorchError> {
    no_grad(|| {
        let total = |x: &Tensor| x.square().sum_dim_intlist([-1].as_slice(), false, Kind::Float).mean(Kind::Float);
        let mean_1SQ = world.mean(&change_BSQ.mean_dim([0].as_slice(), true, Kind::Float))?;
        let both = Tensor::stack(&[total(&(change_BSQ - mean_1SQ)), total(&(vectors_BSQ - change_BSQ))], 0);
        let both = world.mean(&both)?;
        Ok(both.get(0) / both.get(1).clamp_min(MIN_NOISE))
    })
}

/// That of a sample whose parts come one after the other and are of any size: of a validation.
pub(crate) struct SignalToNoise {
    /// Float64: number of samples, sum of the squared changes, of the squared distances, and of the changes in each of their `S·Q` places.
    sums_N: Tensor,
}

impl SignalToNoise {
    /// Of no sample yet, on `device`.
    pub(crate) fn new(dims: &Dims, device: Device) -> Self {
        Self { sums_N: Tensor::zeros([3 + dims.code_seq_len * dims.code_dim], (Kind::Double, device)) }
    }

    /// Adds normalised changes `[B,S,Q]`, and what the decoders see of them.
    pub(crate) fn add(&mut self, change_BSQ: &Tensor, vectors_BSQ: &Tensor) {
        no_grad(|| {
            let [change_BSQ, vectors_BSQ] = [change_BSQ, vectors_BSQ].map(|x| x.detach().to_kind(Kind::Double));
            let count = Tensor::full([1], change_BSQ.size()[0] as f64, (Kind::Double, change_BSQ.device()));
            let total = |x: &Tensor| x.square().sum(Kind::Double).view([1]);
            let of_places = change_BSQ.sum_dim_intlist([0].as_slice(), false, Kind::Double).flatten(0, -1);
            let parts = [count, total(&change_BSQ), total(&(vectors_BSQ - &change_BSQ)), of_places];
            self.sums_N = &self.sums_N + Tensor::cat(&parts, 0);
        });
    }

    /// The ratio over what all processes added, with the variance that a sample of any size has in the mean; none for a single sample.
    ///
    /// # Errors
    /// Another process is gone.
    pub(crate) fn of_all(self, world: &World) -> anyhow::Result<Option<f64>> {
        world.all_reduce(&self.sums_N)?;
        let sums = Vec::<f64>::try_from(self.sums_N.to_device(Device::Cpu))?;
        let (&[count, squares, noise], of_places) = sums.split_first_chunk().unwrap_or((&[0.0; 3], &[]));
        let deviation = squares - of_places.iter().map(|sum| sum * sum).sum::<f64>() / count.max(1.0);
        let variance = deviation.max(0.0) / (count - 1.0);
        Ok((count > 1.0).then(|| variance / (noise / count).max(MIN_NOISE)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;
    use hlrp_torch::rng;

    /// Changes `[N,2,3]`, and what codes leave of them.
    fn samples(num: i64) -> [Tensor; 2] {
        let randn = || Tensor::randn([num, 2, 3], (Kind::Float, Device::Cpu));
        let [change_BSQ, error_BSQ] = rng::seeded(1, || [randn() + 4.0, randn() * 0.5]).unwrap();
        let vectors_BSQ = &change_BSQ + error_BSQ;
        [change_BSQ, vectors_BSQ]
    }

    fn of_parts(sizes: &[i64]) -> Option<f64> {
        let parts = samples(sizes.iter().sum()).map(|rows| rows.split_with_sizes(sizes, 0));
        let mut ratio = SignalToNoise { sums_N: Tensor::zeros([9], (Kind::Double, Device::Cpu)) };
        parts[0].iter().zip(&parts[1]).for_each(|(change, vectors)| ratio.add(change, vectors));
        ratio.of_all(&World::single()).unwrap()
    }

    #[test]
    fn parts_of_any_size_have_the_ratio_of_all_samples() {
        for (num, sizes) in [(12, vec![12]), (12, vec![1; 12]), (12, vec![5, 7]), (2, vec![2])] {
            let [change_BSQ, vectors_BSQ] = samples(num);
            let variance = change_BSQ.to_kind(Kind::Double).var_dim([0i64].as_slice(), true, false).sum(Kind::Double);
            let noise = (vectors_BSQ - change_BSQ).square().sum(Kind::Double) / num as f64;
            let wanted = (variance / noise).double_value(&[]);
            assert!((of_parts(&sizes).unwrap() / wanted - 1.0).abs() < 1e-5, "{sizes:?}");
        }
        assert_eq!(of_parts(&[1]), None);
    }
}
