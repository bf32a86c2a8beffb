//! How often each code is used in training.

use hlrp_nn::Scope;
use tch::{Device, Kind, Tensor, no_grad};

/// Counts of assignments, on the device, saved in every checkpoint. Only training adds to them.
pub struct CodeUsage {
    /// `int64 [K]` assignments since the last refresh.
    window_K: Tensor,
    /// `float32 [K]` running frequencies; all zero before the first step.
    recent_K: Tensor,
    decay: f64,
}

impl CodeUsage {
    /// Counts of `num_codes` codes in `scope`; `decay` is the fraction of the old average per step in the running
    /// frequencies.
    pub(super) fn new(scope: &Scope<'_>, num_codes: i64, decay: f64) -> Self {
        let zeros = |kind| Tensor::zeros([num_codes], (kind, Device::Cpu));
        Self {
            window_K: scope.buffer("codebooks_used", &zeros(Kind::Int64)),
            recent_K: scope.buffer("recent_use", &zeros(Kind::Float)),
            decay,
        }
    }

    /// Adds one batch's assignments. `counts_K` is `int64 [K]`.
    pub fn add(&mut self, counts_K: &Tensor) {
        no_grad(|| {
            let mut window_K = self.window_K.shallow_clone();
            let _ = window_K.g_add_(counts_K);
            let fraction_K = counts_K.to_kind(Kind::Float) / counts_K.sum(Kind::Float);
            let mut recent_K = self.recent_K.shallow_clone();
            let _ = recent_K.g_mul_scalar_(self.decay).g_add_(&(fraction_K * (1.0 - self.decay)));
        });
    }

    /// `int64 [K]` assignments since the last refresh.
    pub fn window(&self) -> &Tensor {
        &self.window_K
    }

    /// `float32 [K]` running frequencies, which sum to 1 after many steps.
    pub fn recent(&self) -> &Tensor {
        &self.recent_K
    }

    /// The metrics of a training pass with `counts_K` assignments, which were added before; scalars on the device.
    pub(super) fn metrics(&self, counts_K: &Tensor) -> Vec<(&'static str, Tensor)> {
        vec![
            ("vq_perplexity", perplexity(counts_K)),
            ("num_unique_codes", counts_K.gt(0).sum(Kind::Float)),
            ("codebook_window_perplexity", perplexity(&self.recent_K)),
        ]
    }

    /// Empties the window.
    pub(super) fn start_window(&mut self) {
        let _ = no_grad(|| self.window_K.shallow_clone().zero_());
    }
}

/// `int64 [K]`: how often each code occurs in `ids`.
pub(super) fn count_codes(ids: &Tensor, num_codes: i64) -> Tensor {
    let codes_K = Tensor::arange(num_codes, (Kind::Int64, ids.device()));
    ids.reshape([-1, 1]).eq_tensor(&codes_K).sum_dim_intlist([0].as_slice(), false, Kind::Int64)
}

/// `int64 [S,K]`: how often each code occurs in each slot of `ids_BS`.
pub(crate) fn count_codes_by_slot(ids_BS: &Tensor, num_codes: i64) -> Tensor {
    let codes_K = Tensor::arange(num_codes, (Kind::Int64, ids_BS.device()));
    ids_BS.unsqueeze(-1).eq_tensor(&codes_K).sum_dim_intlist([0].as_slice(), false, Kind::Int64)
}

/// exp of the entropy of the frequencies of counts `[…,K]` (any kind, not all zero): 1 to K.
pub fn perplexity(counts: &Tensor) -> Tensor {
    const MIN_FRACTION: f64 = 1e-12;
    let over_codes = [-1].as_slice();
    let fractions = counts.to_kind(Kind::Float) / counts.sum_dim_intlist(over_codes, true, Kind::Float);
    let surprise = &fractions * (&fractions + MIN_FRACTION).log();
    (-surprise.sum_dim_intlist(over_codes, false, Kind::Float)).exp()
}
