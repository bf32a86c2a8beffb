//! Means over batches of different sizes.

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

    /// Means by name; waits for the device.
    ///
    /// # Errors
    /// A value that was no scalar.
    pub fn means(self) -> anyhow::Result<BTreeMap<String, f64>> {
        self.0.into_iter().map(|(name, (sum, count))| Ok((name, f64::try_from(sum)? / count as f64))).collect()
    }
}
