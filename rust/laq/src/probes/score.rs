//! How well predictions fit: R² of each dimension, its mean, and an interval from resampled episodes.
//!
//! Shape suffixes: M pairs, E episodes, R resamples (the first is the sample itself), A dimensions of the target.

use hlrp_torch::{TorchError, rng};
use serde::Serialize;
use tch::{Device, Kind, Tensor};

/// Resamples of an interval.
pub(super) const NUM_RESAMPLES: i64 = 1000;
/// Keeps an R² finite whose target does not vary.
const MIN_VARIANCE: f64 = 1e-12;

/// A number with the interval in which 95 % of the resamples are.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Estimate {
    pub(super) value: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Estimate {
    /// That of `values_R`.
    pub(super) fn of(values_R: &Tensor) -> Self {
        let resampled = values_R.narrow(0, 1, values_R.size()[0] - 1);
        let quantile = |q| resampled.quantile_scalar(q, 0, false, "linear").double_value(&[]);
        Self { value: values_R.double_value(&[0]), low: quantile(0.025), high: quantile(0.975) }
    }
}

/// Episodes drawn with replacement, as often as there are episodes: the same draws for everything that is scored.
pub(super) struct Resamples {
    /// How often each pair counts, `[R,M]`.
    counts_RM: Tensor,
}

impl Resamples {
    /// Of pairs of these episodes, from a seed that is always the same.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub(super) fn new(episodes_M: &[i64]) -> Result<Self, TorchError> {
        const SEED: u64 = 0;
        let mut known = episodes_M.to_vec();
        known.sort_unstable();
        known.dedup();
        let num_episodes = known.len() as i64;
        let drawn_RE = rng::seeded(SEED, || {
            Tensor::randint(num_episodes, [NUM_RESAMPLES, num_episodes], (Kind::Int64, Device::Cpu))
        })?;
        Ok(Self::of(episodes_M, &known, &drawn_RE))
    }

    /// Of the episodes `drawn_RE`, positions in `known`.
    pub(super) fn of(episodes_M: &[i64], known: &[i64], drawn_RE: &Tensor) -> Self {
        let [num_resamples, num_episodes] = [drawn_RE.size()[0], known.len() as i64];
        let ones_RE = drawn_RE.ones_like().to_kind(Kind::Double);
        let counts_RE = Tensor::zeros([num_resamples, num_episodes], (Kind::Double, Device::Cpu));
        let counts_RE = counts_RE.scatter_add(1, drawn_RE, &ones_RE);
        let counts_RE =
            Tensor::cat(&[counts_RE.new_ones([1, num_episodes], (Kind::Double, Device::Cpu)), counts_RE], 0);
        let position = |episode: &i64| known.binary_search(episode).unwrap_or_default() as i64;
        let positions_M: Vec<i64> = episodes_M.iter().map(position).collect();
        Self { counts_RM: counts_RE.index_select(1, &Tensor::from_slice(&positions_M)) }
    }

    /// R² of each dimension in each resample, `[R,A]`: 1 − mean squared error in the resample / variance over all pairs. The variance of a few
    /// episodes alone can be none, as that of a gripper that stays closed.
    pub(super) fn r2(&self, target_MA: &Tensor, predicted_MA: &Tensor) -> Tensor {
        let count_R1 = self.counts_RM.sum_dim_intlist([1].as_slice(), true, Kind::Double);
        let error_RA = self.counts_RM.matmul(&(target_MA - predicted_MA).square()) / count_R1;
        let variance_A = target_MA.var_dim([0].as_slice(), false, false);
        error_RA / variance_A.clamp_min(MIN_VARIANCE) * -1.0 + 1.0
    }
}

/// How much of what `context_R` leaves open `both_R` explains, in each resample: (R² of both − R² of the context) / (1 − R² of the
/// context).
pub(super) fn partial(both_R: &Tensor, context_R: &Tensor) -> Tensor {
    (both_R - context_R) / (context_R.ones_like() - context_R).clamp_min(MIN_VARIANCE)
}
