//! Means over batches of different sizes.

use hlrp_torch::World;
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

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

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Means by name over what all processes added, 0 where nothing counts; waits for the device.
    ///
    /// # Errors
    /// A value that is not a scalar, or a process that is gone.
    pub fn means(self, world: &World) -> anyhow::Result<BTreeMap<String, f64>> {
        let mean = |(name, (sum, count)): (String, (Tensor, Tensor))| {
            world.all_reduce(&sum)?;
            world.all_reduce(&count)?;
            let (sum, count) = (f64::try_from(sum)?, f64::try_from(count)?);
            Ok((name, if count == 0.0 { 0.0 } else { sum / count }))
        };
        self.0.into_iter().map(mean).collect()
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
        let means = sums.means(&World::single()).unwrap();
        assert_eq!([means["masked"], means["of samples"], means["nothing"]], [2.0, 2.0, 0.0]);
    }
}
