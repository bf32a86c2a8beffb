//! Means over batches of different sizes.

use hlrp_torch::World;
use std::collections::{BTreeMap, BTreeSet};
use tch::{Device, Kind, Tensor};

/// Sums of values weighted by how much each counts, in float64 on the device until they are asked for.
#[derive(Default)]
pub struct Sums(BTreeMap<String, (Tensor, Tensor)>);

impl Sums {
    /// Adds a mean over `num_samples` samples.
    pub fn add(&mut self, name: &str, mean: &Tensor, num_samples: i64) {
        let count = mean.detach().to_kind(Kind::Double).full_like(num_samples as f64);
        self.add_masked(name, mean, &count);
    }

    /// Adds a mean over `count` supervised values, a scalar.
    pub fn add_masked(&mut self, name: &str, mean: &Tensor, count: &Tensor) {
        let count = count.detach().to_kind(Kind::Double);
        let weighted = mean.detach().to_kind(Kind::Double) * &count;
        let sums = match self.0.remove(name) {
            Some((sum, total)) => (sum + weighted, total + count),
            None => (weighted, count),
        };
        self.0.insert(name.to_owned(), sums);
    }

    /// Means by name over what all processes added, 0 where nothing counts, none where nothing was added; waits for the device. A process
    /// that added less takes part like the others. `device` is that of the sums.
    ///
    /// # Errors
    /// A value that is not a scalar, or a process that is gone.
    pub fn means(self, world: &World, device: Device) -> anyhow::Result<BTreeMap<String, f64>> {
        let own: Vec<&str> = self.0.keys().map(String::as_str).collect();
        let names = world.all_gather_text(&own.join("\n"))?;
        let names: BTreeSet<&str> = names.iter().flat_map(|names| names.lines()).collect();
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        let zero = || Tensor::zeros([], (Kind::Double, device));
        let of_name = |name: &&str| match self.0.get(*name) {
            Some((sum, count)) => [sum.reshape([0i64; 0]), count.reshape([0i64; 0])],
            None => [zero(), zero()],
        };
        let sums = Tensor::f_stack(&names.iter().flat_map(of_name).collect::<Vec<_>>(), 0)?;
        world.all_reduce(&sums)?;
        let sums = Vec::<f64>::try_from(sums.to_device(Device::Cpu))?;
        let mean =
            |(name, pair): (&str, &[f64])| (name.to_owned(), if pair[1] == 0.0 { 0.0 } else { pair[0] / pair[1] });
        Ok(names.into_iter().zip(sums.chunks(2)).map(mean).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;

    #[test]
    fn a_masked_mean_counts_by_its_supervised_values() {
        let mut sums = Sums::default();
        sums.add_masked("masked", &Tensor::from(1.0f32), &Tensor::from(3i64));
        sums.add_masked("masked", &Tensor::from(5.0f32), &Tensor::from(1i64));
        sums.add_masked("nothing", &Tensor::from(0.0f32), &Tensor::from(0i64));
        sums.add("of samples", &Tensor::from(1.0f32), 3);
        sums.add("of samples", &Tensor::from(5.0f32), 1);
        let means = sums.means(&World::single(), Device::Cpu).unwrap();
        assert_eq!([means["masked"], means["of samples"], means["nothing"]], [2.0, 2.0, 0.0]);
    }
}
