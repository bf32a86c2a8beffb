//! How often the nearest code of a predicted latent action is the teacher's.
//!
//! Shape suffixes: B samples, S code slots, K codes.

use hlrp_torch::World;
use hlrp_track::metrics::MetricSpec;
use hlrp_train::validation::shape_of_all;
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

/// The metrics: of the policy, of each slot's most frequent code, and of the last pair's codes.
pub(super) fn metrics() -> [MetricSpec; 3] {
    [
        MetricSpec::new("val/latent_code_accuracy", "code accuracy").higher_is_better(),
        MetricSpec::new("val/latent_code_frequent_baseline", "code accuracy, always the most frequent"),
        MetricSpec::new("val/latent_code_repeat_baseline", "code accuracy, last pair repeated"),
    ]
}

/// Counts over samples, on the device.
pub(super) struct CodeAccuracy {
    num_codes: i64,
    hits: Tensor,
    repeat_hits: Tensor,
    /// Slots that have a last pair to repeat.
    num_repeated: Tensor,
    /// How often each code is the true one of its slot.
    counts_SK: Option<Tensor>,
}

impl CodeAccuracy {
    pub(super) fn new(num_codes: i64, device: Device) -> Self {
        let zero = || Tensor::zeros([], (Kind::Int64, device));
        Self { num_codes, hits: zero(), repeat_hits: zero(), num_repeated: zero(), counts_SK: None }
    }

    /// Adds predicted, repeated and true codes, `[B,S]`. `is_valid_BS` is true for the slots that have a true code, `was_valid_BS` for
    /// those that have one to repeat.
    pub(super) fn add(
        &mut self,
        predicted_BS: &Tensor,
        repeated_BS: &Tensor,
        true_BS: &Tensor,
        is_valid_BS: &Tensor,
        was_valid_BS: &Tensor,
    ) {
        let both_valid_BS = is_valid_BS.logical_and(was_valid_BS);
        self.hits += predicted_BS.eq_tensor(true_BS).logical_and(is_valid_BS).sum(Kind::Int64);
        self.repeat_hits += repeated_BS.eq_tensor(true_BS).logical_and(&both_valid_BS).sum(Kind::Int64);
        self.num_repeated += both_valid_BS.sum(Kind::Int64);
        let one_hot_BSK = true_BS.one_hot(self.num_codes) * is_valid_BS.unsqueeze(2).to_kind(Kind::Int64);
        let counts_SK = one_hot_BSK.sum_dim_intlist([0].as_slice(), false, Kind::Int64);
        self.counts_SK = Some(match self.counts_SK.take() {
            Some(counts) => counts + counts_SK,
            None => counts_SK,
        });
    }

    /// Fractions of slots that are right over the samples of all processes, by the names of [`metrics`].
    ///
    /// # Errors
    /// A process that is gone.
    pub(super) fn metrics(&self, world: &World) -> anyhow::Result<BTreeMap<String, f64>> {
        let Some(shape_SK) = shape_of_all(world, self.counts_SK.as_ref())? else { return Ok(BTreeMap::new()) };
        let none = || Tensor::zeros(shape_SK.as_slice(), (Kind::Int64, self.hits.device()));
        let counts_SK = &self.counts_SK.as_ref().map_or_else(none, Tensor::shallow_clone);
        for count in [&self.hits, &self.repeat_hits, &self.num_repeated, counts_SK] {
            world.all_reduce(count)?;
        }
        let number = |x: &Tensor| x.int64_value(&[]) as f64;
        let total = number(&counts_SK.sum(Kind::Int64)).max(1.0);
        let most_frequent = counts_SK.amax([1].as_slice(), false).sum(Kind::Int64);
        let hits = [&self.hits, &most_frequent, &self.repeat_hits].map(number);
        let totals = [total, total, number(&self.num_repeated).max(1.0)];
        let fractions = hits.into_iter().zip(totals).map(|(hits, total)| hits / total);
        Ok(metrics().into_iter().zip(fractions).map(|(spec, fraction)| (spec.name, fraction)).collect())
    }
}
