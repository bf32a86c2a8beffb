//! Which fraction of the samples each source really had, beside the fraction that it should have.

use crate::error::Result;
use hlrp_data::SampleMeta;
use hlrp_torch::World;
use std::collections::BTreeMap;
use tch::{Device, Tensor};

/// Samples by source since the last report.
pub(crate) struct RealisedShares {
    targets: BTreeMap<String, f64>,
    /// In the order of `targets`.
    counts: Vec<f64>,
}

impl RealisedShares {
    /// Counts the samples of sources with these targets; of none where there are no targets.
    pub(crate) fn new(targets: BTreeMap<String, f64>) -> Self {
        Self { counts: vec![0.0; targets.len()], targets }
    }

    /// Counts the samples of a step.
    pub(crate) fn add<'a>(&mut self, samples: impl Iterator<Item = &'a SampleMeta>) {
        if self.targets.is_empty() {
            return;
        }
        for sample in samples {
            let sources = self.targets.keys().zip(&mut self.counts);
            sources.filter(|(name, _)| **name == sample.source).for_each(|(_, count)| *count += 1.0);
        }
    }

    /// `data/share/<source>` in the batches of all processes since the last call, and `data/target_share/<source>`.
    pub(crate) fn take(&mut self, world: &World, device: Device) -> Result<Vec<(String, f64)>> {
        if self.targets.is_empty() {
            return Ok(Vec::new());
        }
        let counts = Tensor::from_slice(&self.counts).to_device(device);
        world.all_reduce(&counts)?;
        self.counts.fill(0.0);
        let counts = Vec::<f64>::try_from(counts.to_device(Device::Cpu))?;
        let total = counts.iter().sum::<f64>().max(1.0);
        let share = |((name, target), count): ((&String, &f64), f64)| {
            [(format!("data/share/{name}"), count / total), (format!("data/target_share/{name}"), *target)]
        };
        Ok(self.targets.iter().zip(counts).flat_map(share).collect())
    }
}
