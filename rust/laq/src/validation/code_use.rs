//! How the codes of a validation are spread.

use crate::quantizers::codes_curve;
use hlrp_torch::World;
use hlrp_track::metrics::MetricSpec;
use hlrp_track::sinks::{Histogram, NamedHistogram};
use hlrp_train::validation::gather_rows;
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

/// Counts of codes and of code sequences.
pub(super) struct CodeUse {
    counts_K: Vec<u64>,
    sequences: BTreeMap<Vec<i64>, u64>,
    num_slots: usize,
}

impl CodeUse {
    pub(super) fn new(num_codes: i64, num_slots: i64) -> Self {
        let size = |count: i64| usize::try_from(count).unwrap_or(0);
        Self { counts_K: vec![0; size(num_codes)], sequences: BTreeMap::new(), num_slots: size(num_slots) }
    }

    /// Adds codes `int64 [B,S]`.
    pub(super) fn add(&mut self, ids_BS: &Tensor) -> anyhow::Result<()> {
        let ids = Vec::<i64>::try_from(ids_BS.to_device(Device::Cpu).to_kind(Kind::Int64).reshape([-1]))?;
        for sequence in ids.chunks(self.num_slots) {
            for &id in sequence {
                self.counts_K[usize::try_from(id)?] += 1;
            }
            *self.sequences.entry(sequence.to_vec()).or_default() += 1;
        }
        Ok(())
    }

    /// The counts of all processes together.
    ///
    /// # Errors
    /// A process that is gone.
    pub(super) fn of_all(mut self, world: &World) -> anyhow::Result<Self> {
        let rows: Vec<i64> =
            self.sequences.iter().flat_map(|(ids, count)| ids.iter().copied().chain([*count as i64])).collect();
        let width = self.num_slots + 1;
        let rows_NC = Tensor::from_slice(&rows).view([self.sequences.len() as i64, width as i64]);
        let rows = Vec::<i64>::try_from(gather_rows(world, &rows_NC)?.reshape([-1]))?;
        self.counts_K.fill(0);
        self.sequences.clear();
        for row in rows.chunks(width) {
            let (ids, count) = row.split_at(self.num_slots);
            let count = u64::try_from(count[0])?;
            for &id in ids {
                self.counts_K[usize::try_from(id)?] += count;
            }
            *self.sequences.entry(ids.to_vec()).or_default() += count;
        }
        Ok(self)
    }

    /// How often each code occurred.
    pub(super) fn counts(&self) -> &[u64] {
        &self.counts_K
    }

    /// Codes that occurred.
    pub(super) fn num_used(&self) -> usize {
        self.counts_K.iter().filter(|count| **count > 0).count()
    }

    /// How often each code occurred in slot `slot`.
    fn counts_of_slot(&self, slot: usize) -> Vec<u64> {
        let mut counts_K = vec![0; self.counts_K.len()];
        for (ids, count) in &self.sequences {
            counts_K[usize::try_from(ids[slot]).unwrap_or(0)] += count;
        }
        counts_K
    }

    /// How often each code occurred, slot by slot.
    pub(super) fn histograms(&self) -> Vec<NamedHistogram> {
        let of_slot = |slot| NamedHistogram {
            name: format!("val/slot{slot}_codes"),
            histogram: Histogram::of_counts(&self.counts_of_slot(slot)),
        };
        (0..self.num_slots).map(of_slot).collect()
    }

    /// Scalars by full name; entropies in nats.
    pub(super) fn metrics(&self) -> Vec<(String, f64)> {
        let by_slot = (0..self.num_slots).flat_map(|slot| {
            let counts_K = self.counts_of_slot(slot);
            let num_used = counts_K.iter().filter(|count| **count > 0).count();
            [
                (format!("val/slot{slot}_perplexity"), entropy(counts_K.into_iter()).exp()),
                (format!("val/slot{slot}_unique_codes"), num_used as f64),
            ]
        });
        self.overall().into_iter().chain(by_slot).collect()
    }

    fn overall(&self) -> Vec<(String, f64)> {
        let num_samples: u64 = self.sequences.values().sum();
        let code_entropy = entropy(self.counts_K.iter().copied());
        [
            ("val/codebook_utilization", self.num_used() as f64 / self.counts_K.len() as f64),
            ("val/num_unique_codes", self.num_used() as f64),
            ("val/codebook_entropy", code_entropy),
            ("val/vq_perplexity", code_entropy.exp()),
            ("val/sequence_entropy", entropy(self.sequences.values().copied())),
            ("val/unique_sequences", self.sequences.len() as f64),
            ("val/total_val_samples", num_samples as f64),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

/// The metrics that [`CodeUse::metrics`] returns for a model of `num_codes` codes in `num_slots` slots.
pub(super) fn metrics(num_codes: i64, num_slots: i64) -> Vec<MetricSpec> {
    let in_use = format!("codes in use (of {num_codes})");
    let overall = [
        MetricSpec::new("val/num_unique_codes", in_use).higher_is_better().drawn_in(&codes_curve()),
        MetricSpec::detail("val/codebook_utilization").higher_is_better(),
        MetricSpec::detail("val/codebook_entropy").higher_is_better(),
        MetricSpec::detail("val/vq_perplexity").higher_is_better(),
        MetricSpec::detail("val/sequence_entropy").higher_is_better(),
        MetricSpec::detail("val/unique_sequences").higher_is_better(),
        MetricSpec::detail("val/total_val_samples"),
    ];
    let by_slot = (0..num_slots).flat_map(|slot| {
        ["perplexity", "unique_codes"]
            .map(|what| MetricSpec::detail(format!("val/slot{slot}_{what}")).higher_is_better())
    });
    overall.into_iter().chain(by_slot).collect()
}

/// Entropy in nats of the frequencies of `counts`; zero counts add nothing.
fn entropy(counts: impl Iterator<Item = u64> + Clone) -> f64 {
    let total = counts.clone().sum::<u64>() as f64;
    let fractions = counts.filter(|count| *count > 0).map(|count| count as f64 / total);
    fractions.fold(0.0, |sum, fraction| sum + fraction * fraction.recip().ln())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::{CodeUse, entropy};
    use tch::Tensor;

    #[test]
    fn each_slot_has_counts_of_its_own() {
        let mut codes = CodeUse::new(4, 2);
        codes.add(&Tensor::from_slice(&[0_i64, 1, 0, 2, 0, 1, 0, 2]).view([4, 2])).unwrap();
        let metrics: std::collections::BTreeMap<_, _> = codes.metrics().into_iter().collect();
        assert_eq!((metrics["val/slot0_perplexity"], metrics["val/slot0_unique_codes"]), (1.0, 1.0));
        assert!((metrics["val/slot1_perplexity"] - 2.0).abs() < 1e-12);
        assert_eq!(metrics["val/slot1_unique_codes"], 2.0);
        assert_eq!(metrics["val/num_unique_codes"], 3.0);
    }

    #[test]
    fn one_code_alone_has_an_entropy_of_zero_without_a_sign() {
        for counts in [[0, 7, 0, 0], [0; 4]] {
            assert_eq!(entropy(counts.into_iter()).to_string(), "0");
        }
    }

    #[test]
    fn entropy_of_counts_1_1_2_0_is_1_03972_nats() {
        assert!((entropy([1, 1, 2, 0].into_iter()) - 1.039_720_8).abs() < 1e-6);
    }
}
