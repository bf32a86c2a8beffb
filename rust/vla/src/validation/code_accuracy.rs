//! How often the nearest code of a predicted latent action is the teacher's.
//!
//! Shape suffixes: B samples, S code slots, K codes, D numbers of a code vector.

use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// Names of the metrics: of the policy, of each slot's most frequent code, and of the last pair's codes.
pub(super) const NAMES: [&str; 3] =
    ["val/latent_code_accuracy", "val/latent_code_frequent_baseline", "val/latent_code_repeat_baseline"];

/// Counts over samples, on the device.
pub(super) struct CodeAccuracy {
    codebook_KD: Tensor,
    hits: Tensor,
    repeat_hits: Tensor,
    /// How often each code is the true one of its slot.
    counts_SK: Option<Tensor>,
}

impl CodeAccuracy {
    pub(super) fn new(codebook_KD: Tensor) -> Self {
        let zero = || Tensor::zeros([], (Kind::Int64, codebook_KD.device()));
        Self { hits: zero(), repeat_hits: zero(), counts_SK: None, codebook_KD }
    }

    /// Nearest codes `int64 [B,S]` of latent actions `[B,S,D]`.
    pub(super) fn nearest(&self, latents_BSD: &Tensor) -> Tensor {
        let difference_BSKD = latents_BSD.unsqueeze(2) - self.codebook_KD.view([1, 1, -1, self.codebook_KD.size()[1]]);
        difference_BSKD.square().sum_dim_intlist([3].as_slice(), false, Kind::Float).argmin(2, false)
    }

    /// Adds predicted, repeated and true codes.
    pub(super) fn add(&mut self, predicted_BS: &Tensor, repeated_BS: &Tensor, true_BS: &Tensor) {
        self.hits += predicted_BS.eq_tensor(true_BS).sum(Kind::Int64);
        self.repeat_hits += repeated_BS.eq_tensor(true_BS).sum(Kind::Int64);
        let one_hot_BSK = true_BS.one_hot(self.codebook_KD.size()[0]);
        let counts_SK = one_hot_BSK.sum_dim_intlist([0].as_slice(), false, Kind::Int64);
        self.counts_SK = Some(match self.counts_SK.take() {
            Some(counts) => counts + counts_SK,
            None => counts_SK,
        });
    }

    /// Shares of slots that are right, by [`NAMES`].
    pub(super) fn metrics(&self) -> BTreeMap<String, f64> {
        let Some(counts_SK) = &self.counts_SK else { return BTreeMap::new() };
        let number = |x: &Tensor| x.int64_value(&[]) as f64;
        let total = number(&counts_SK.sum(Kind::Int64)).max(1.0);
        let most_frequent = counts_SK.amax([1].as_slice(), false).sum(Kind::Int64);
        let hits = [&self.hits, &most_frequent, &self.repeat_hits].map(number);
        NAMES.into_iter().zip(hits).map(|(name, hits)| (name.to_owned(), hits / total)).collect()
    }
}
