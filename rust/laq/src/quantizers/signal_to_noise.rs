//! Signal to noise: the variance of the changes, divided by their mean squared distance to what the decoders see. About 1 = the codes say nothing
//! about the changes.
//!
//! Shape suffixes: B samples, S code slots, Q width of a code vector, N sums.

use crate::dims::Dims;
use hlrp_torch::{TorchError, World};
use tch::{Device, Kind, Tensor, no_grad};

/// Keeps the ratio finite.
const MIN_NOISE: f64 = 1e-12;

/// That of the batches of all processes, a float32 scalar on the device: their changes `[B,S,Q]`, and what the decoders see of them.
///
/// # Errors
/// Another process is gone.
pub(super) fn of_batch(change_BSQ: &Tensor, vectors_BSQ: &Tensor, world: &World) -> Result<Tensor, TorchError> {
    let size = change_BSQ.size();
    let mut ratio = SignalToNoise::of_size(size[1] * size[2], change_BSQ.device());
    ratio.add(change_BSQ, vectors_BSQ);
    world.all_reduce(&ratio.sums_N)?;
    Ok(ratio.value().to_kind(Kind::Float))
}

/// That of a sample whose parts come one after the other and are of any size: of a validation.
pub(crate) struct SignalToNoise {
    /// Float64: number of samples, sum of the squared changes, of the squared distances, and of each of the `S·Q` values of the changes.
    sums_N: Tensor,
}

impl SignalToNoise {
    /// Of no sample yet, on `device`.
    pub(crate) fn new(dims: &Dims, device: Device) -> Self {
        Self::of_size(dims.code_seq_len * dims.code_dim, device)
    }

    /// For changes of `num_values` values each.
    fn of_size(num_values: i64, device: Device) -> Self {
        Self { sums_N: Tensor::zeros([3 + num_values], (Kind::Double, device)) }
    }

    /// Adds normalised changes `[B,S,Q]`, and what the decoders see of them.
    pub(crate) fn add(&mut self, change_BSQ: &Tensor, vectors_BSQ: &Tensor) {
        no_grad(|| {
            let [change_BSQ, vectors_BSQ] = [change_BSQ, vectors_BSQ].map(|x| x.detach().to_kind(Kind::Double));
            let count = Tensor::full([1], change_BSQ.size()[0] as f64, (Kind::Double, change_BSQ.device()));
            let total = |x: &Tensor| x.square().sum(Kind::Double).view([1]);
            let sums = change_BSQ.sum_dim_intlist([0].as_slice(), false, Kind::Double).flatten(0, -1);
            let parts = [count, total(&change_BSQ), total(&(vectors_BSQ - &change_BSQ)), sums];
            self.sums_N = &self.sums_N + Tensor::cat(&parts, 0);
        });
    }

    /// The ratio over what all processes added; none for a single sample.
    ///
    /// # Errors
    /// Another process is gone.
    pub(crate) fn of_all(self, world: &World) -> anyhow::Result<Option<f64>> {
        world.all_reduce(&self.sums_N)?;
        Ok((self.sums_N.double_value(&[0]) > 1.0).then(|| self.value().double_value(&[])))
    }

    /// The ratio, with the variance that a sample of any size has in the mean; 0 for a single sample.
    fn value(&self) -> Tensor {
        let [count, squares, noise] = [0, 1, 2].map(|index| self.sums_N.get(index));
        let sums = self.sums_N.narrow(0, 3, self.sums_N.size()[0] - 3);
        let centred = squares - sums.square().sum(Kind::Double) / count.clamp_min(1.0);
        let variance = centred.clamp_min(0.0) / (&count - 1.0).clamp_min(1.0);
        variance / (noise / count).clamp_min(MIN_NOISE)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;
    use hlrp_torch::rng;

    /// Changes `[B,2,3]`, and what codes leave of them.
    fn samples(num: i64) -> [Tensor; 2] {
        let randn = || Tensor::randn([num, 2, 3], (Kind::Float, Device::Cpu));
        let [change_BSQ, error_BSQ] = rng::seeded(1, || [randn() + 4.0, randn() * 0.5]).unwrap();
        let vectors_BSQ = &change_BSQ + error_BSQ;
        [change_BSQ, vectors_BSQ]
    }

    fn of_parts(sizes: &[i64]) -> Option<f64> {
        let parts = samples(sizes.iter().sum()).map(|rows| rows.split_with_sizes(sizes, 0));
        let mut ratio = SignalToNoise::of_size(6, Device::Cpu);
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
