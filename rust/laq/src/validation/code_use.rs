//! How the codes of a validation are spread.

use crate::model::LaqModel;
use crate::quantizers::{Codes, codes_curve};
use hlrp_torch::World;
use hlrp_track::metrics::MetricSpec;
use hlrp_track::sinks::{Histogram, NamedHistogram};
use hlrp_train::validation::gather_rows;
use std::collections::BTreeMap;
use tch::Tensor;

/// Name of the perplexity over all slots.
pub(crate) const PERPLEXITY: &str = "val/vq_perplexity";

/// Name of the perplexity of one slot.
pub(crate) fn slot_perplexity(slot: usize) -> String {
    format!("val/slot{slot}_perplexity")
}

/// Counts of codes and of code sequences.
pub(crate) struct CodeUse {
    counts_K: Vec<u64>,
    sequences: BTreeMap<Vec<i64>, u64>,
    num_slots: usize,
}

impl CodeUse {
    pub(crate) fn new(num_codes: i64, num_slots: i64) -> Self {
        let size = |count: i64| usize::try_from(count).unwrap_or(0);
        Self { counts_K: vec![0; size(num_codes)], sequences: BTreeMap::new(), num_slots: size(num_slots) }
    }

    /// That of a model; none where its latent is continuous.
    pub(crate) fn of(model: &LaqModel) -> Option<Self> {
        model.quantizer.codes().map(|codes| Self::new(codes.num_codes(), model.dims().code_seq_len))
    }

    /// Adds the codes of one sample.
    pub(crate) fn add(&mut self, ids_S: &[i64]) {
        for &id in ids_S {
            self.counts_K[usize::try_from(id).unwrap_or(0)] += 1;
        }
        *self.sequences.entry(ids_S.to_vec()).or_default() += 1;
    }

    /// Samples.
    pub(crate) fn num_samples(&self) -> u64 {
        self.sequences.values().sum()
    }

    /// Sequences of codes and how often each occurred: the most frequent first, equally frequent ones in the order of their codes.
    pub(crate) fn sequences(&self) -> Vec<(Vec<i64>, u64)> {
        let mut sequences: Vec<_> = self.sequences.iter().map(|(ids, count)| (ids.clone(), *count)).collect();
        sequences.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        sequences
    }

    /// The counts of all processes together.
    ///
    /// # Errors
    /// A process that is gone.
    pub(crate) fn of_all(mut self, world: &World) -> anyhow::Result<Self> {
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
    pub(crate) fn counts(&self) -> &[u64] {
        &self.counts_K
    }

    /// Codes that occurred.
    pub(crate) fn num_used(&self) -> usize {
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
    pub(crate) fn metrics(&self) -> Vec<(String, f64)> {
        let by_slot = (0..self.num_slots).flat_map(|slot| {
            let counts_K = self.counts_of_slot(slot);
            let num_used = counts_K.iter().filter(|count| **count > 0).count();
            [
                (slot_perplexity(slot), entropy(counts_K.into_iter()).exp()),
                (format!("val/slot{slot}_unique_codes"), num_used as f64),
            ]
        });
        self.overall().into_iter().chain(by_slot).collect()
    }

    fn overall(&self) -> Vec<(String, f64)> {
        let code_entropy = entropy(self.counts_K.iter().copied());
        [
            ("val/codebook_utilization", self.num_used() as f64 / self.counts_K.len() as f64),
            ("val/num_unique_codes", self.num_used() as f64),
            ("val/codebook_entropy", code_entropy),
            (PERPLEXITY, code_entropy.exp()),
            ("val/sequence_entropy", entropy(self.sequences.values().copied())),
            ("val/unique_sequences", self.sequences.len() as f64),
            ("val/total_val_samples", self.num_samples() as f64),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

/// The metrics that [`CodeUse::metrics`] returns for a model, each name with `suffix`; the whole validation set has none.
pub(super) fn metrics(model: &LaqModel, suffix: &str) -> Vec<MetricSpec> {
    let Some(num_codes) = model.quantizer.codes().map(Codes::num_codes) else { return Vec::new() };
    let detail = |name: &str| MetricSpec::detail(format!("{name}{suffix}"));
    let in_use = format!("codes in use (of {num_codes})");
    let (num_unique, perplexity) = if suffix.is_empty() {
        let in_use = MetricSpec::new("val/num_unique_codes", in_use).drawn_in(&codes_curve());
        (in_use, MetricSpec::new(PERPLEXITY, format!("perplexity of the codes (of {num_codes})")))
    } else {
        (detail("val/num_unique_codes"), detail(PERPLEXITY))
    };
    let overall = [
        num_unique.higher_is_better(),
        detail("val/codebook_utilization").higher_is_better(),
        detail("val/codebook_entropy").higher_is_better(),
        perplexity.higher_is_better(),
        detail("val/sequence_entropy").higher_is_better(),
        detail("val/unique_sequences").higher_is_better(),
        detail("val/total_val_samples"),
    ];
    let by_slot = (0..model.dims().code_seq_len).flat_map(|slot| {
        ["perplexity", "unique_codes"].map(|what| detail(&format!("val/slot{slot}_{what}")).higher_is_better())
    });
    overall.into_iter().chain(by_slot).collect()
}

/// A sequence of codes as text: `3-1-4-1`.
pub(crate) fn sequence_name(ids_S: &[i64]) -> String {
    ids_S.iter().map(i64::to_string).collect::<Vec<_>>().join("-")
}

/// Entropy in nats of the frequencies of `counts`; zero counts add nothing.
pub(crate) fn entropy(counts: impl Iterator<Item = u64> + Clone) -> f64 {
    let total = counts.clone().sum::<u64>() as f64;
    let fractions = counts.filter(|count| *count > 0).map(|count| count as f64 / total);
    fractions.fold(0.0, |sum, fraction| sum + fraction * fraction.recip().ln())
}

#[cfg(test)]
mod tests {
    use super::{CodeUse, entropy};

    #[test]
    fn each_slot_has_counts_of_its_own() {
        let mut codes = CodeUse::new(4, 2);
        [[0, 1], [0, 2], [0, 1], [0, 2]].iter().for_each(|ids| codes.add(ids));
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
