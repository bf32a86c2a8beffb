//! Means over batches of different sizes.

use hlrp_torch::World;
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// Sums of values weighted by the number of samples, in float64 on the device until they are asked for.
#[derive(Default)]
pub struct Sums(BTreeMap<String, (Tensor, i64)>);

impl Sums {
    /// Adds a mean over `num_samples` samples.
    pub fn add(&mut self, name: &str, mean: &Tensor, num_samples: i64) {
        let weighted = mean.detach().to_kind(Kind::Double) * num_samples;
        let (sum, count) = self.0.remove(name).unwrap_or_else(|| (weighted.zeros_like(), 0));
        self.0.insert(name.to_owned(), (sum + weighted, count + num_samples));
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Means by name over the samples of all processes; waits for the device.
    ///
    /// # Errors
    /// A value that is not a scalar, or a process that is gone.
    pub fn means(self, world: &World) -> anyhow::Result<BTreeMap<String, f64>> {
        let mean = |(name, (sum, count)): (String, (Tensor, i64))| {
            let count = Tensor::from(count).to_device(sum.device());
            world.all_reduce(&sum)?;
            world.all_reduce(&count)?;
            Ok((name, f64::try_from(sum)? / i64::try_from(count)? as f64))
        };
        self.0.into_iter().map(mean).collect()
    }
}
