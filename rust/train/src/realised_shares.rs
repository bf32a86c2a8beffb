//! Which fraction of the samples each source really had, beside the fraction that it should have.

use crate::error::Result;
use hlrp_data::SampleMeta;
use hlrp_torch::World;
use std::collections::BTreeMap;
use tch::{Device, Tensor};

/// Samples by source since the last report.
pub(crate) struct RealisedShares(BTreeMap<String, Source>);

struct Source {
    target: f64,
    num_samples: f64,
}

impl RealisedShares {
    /// Counts the samples of sources with these targets; of none where there are no targets.
    pub(crate) fn new(targets: BTreeMap<String, f64>) -> Self {
        Self(targets.into_iter().map(|(name, target)| (name, Source { target, num_samples: 0.0 })).collect())
    }

    /// Counts the samples of a step.
    pub(crate) fn add<'a>(&mut self, samples: impl Iterator<Item = &'a SampleMeta>) {
        for sample in samples {
            if let Some(source) = self.0.get_mut(&sample.source) {
                source.num_samples += 1.0;
            }
        }
    }

    /// `data/share/<source>` in the batches of all processes since the last call, and `data/target_share/<source>`.
    pub(crate) fn take(&mut self, world: &World, device: Device) -> Result<Vec<(String, f64)>> {
        if self.0.is_empty() {
            return Ok(Vec::new());
        }
        let own: Vec<f64> = self.0.values_mut().map(|source| std::mem::take(&mut source.num_samples)).collect();
        let counts = Tensor::from_slice(&own).to_device(device);
        world.all_reduce(&counts)?;
        let counts = Vec::<f64>::try_from(counts.to_device(Device::Cpu))?;
        let total = counts.iter().sum::<f64>().max(1.0);
        let share = |((name, source), count): ((&String, &Source), f64)| {
            [(format!("data/share/{name}"), count / total), (format!("data/target_share/{name}"), source.target)]
        };
        Ok(self.0.iter().zip(counts).flat_map(share).collect())
    }
}
