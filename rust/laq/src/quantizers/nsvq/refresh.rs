//! Refresh of codes that training does not use.

use crate::draws::Draws;
use hlrp_schema::NsvqDonors;
use tch::{IndexOp, Kind, Tensor, no_grad};

/// Std of a rewritten code around the code that it copies.
const DONOR_STD: f64 = 0.02;
/// Std of the noise added to the whole codebook when no code was used.
const RESTART_STD: f64 = 1e-12;

/// When to refresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshSchedule {
    /// `[interval, until]` in optimizer steps.
    entries: Vec<[u64; 2]>,
}

impl RefreshSchedule {
    /// A schedule of `[interval, until]` entries; none = never.
    pub fn new(entries: &[[u64; 2]]) -> Self {
        Self { entries: entries.to_vec() }
    }

    /// Whether optimizer step `step` (1-based) refreshes: some entry has `step < until` and `step` a multiple of
    /// `interval`.
    pub fn is_due(&self, step: u64) -> bool {
        step != 0 && self.entries.iter().any(|[interval, until]| step < *until && step.is_multiple_of(*interval))
    }
}

/// What a refresh did.
pub struct Refresh {
    /// `int64 [R]` rows judged under-used; rewritten when some other row was used.
    pub unused: Tensor,
    /// `int64 [K−R]` rows judged used.
    pub used: Tensor,
    /// Assignments of the window.
    pub num_assignments: i64,
    /// Count below which a row is under-used.
    pub cutoff: f64,
}

/// Count below which a code is under-used: a fraction of the mean count. A scalar tensor on the device.
pub(super) fn cutoff(window_K: &Tensor, discarding_threshold: f64) -> Tensor {
    window_K.sum(Kind::Float) * (discarding_threshold / window_K.size()[0] as f64)
}

/// Whether each code counts as under-used, `bool [K]`. With an empty window all do.
pub(super) fn is_unused(window_K: &Tensor, discarding_threshold: f64) -> Tensor {
    let below = window_K.to_kind(Kind::Float).lt_tensor(&cutoff(window_K, discarding_threshold));
    below.logical_or(&window_K.sum(Kind::Int64).eq(0))
}

/// Rewrites each under-used row of the codebook with a used row, one of `donors`, plus a little noise.
pub(super) fn rewrite_unused(
    codebook_KQ: &Tensor,
    window_K: &Tensor,
    discarding_threshold: f64,
    donors: NsvqDonors,
    draws: &mut dyn Draws,
) -> Refresh {
    let unused_K = is_unused(window_K, discarding_threshold);
    let rows = |mask_K: &Tensor| mask_K.nonzero().flatten(0, 1);
    let (unused, used) = (rows(&unused_K), rows(&unused_K.logical_not()));
    let refresh = Refresh {
        num_assignments: window_K.sum(Kind::Int64).int64_value(&[]),
        cutoff: cutoff(window_K, discarding_threshold).double_value(&[]),
        unused,
        used,
    };
    let (num_unused, num_used) = (refresh.unused.size()[0], refresh.used.size()[0]);
    let (device, width) = (codebook_KQ.device(), codebook_KQ.size()[1]);
    no_grad(|| {
        let mut codebook_KQ = codebook_KQ.shallow_clone();
        if num_used == 0 {
            let noise_KQ = draws.normal(&codebook_KQ.size(), device) * RESTART_STD;
            let _ = codebook_KQ.g_add_(&noise_KQ);
        } else if num_unused > 0 {
            let donors = match donors {
                NsvqDonors::Usage => draws.weighted(&(window_K * unused_K.logical_not()), num_unused),
                NsvqDonors::Index if num_used >= num_unused => refresh.used.i(..num_unused),
                NsvqDonors::Index => {
                    let repeated = refresh.used.repeat([(num_unused + num_used - 1) / num_used]);
                    repeated.index_select(0, &draws.permutation(repeated.size()[0], device)).i(..num_unused)
                }
            };
            let donors_RQ = codebook_KQ.index_select(0, &donors);
            let rewritten_RQ = donors_RQ + draws.normal(&[num_unused, width], device) * DONOR_STD;
            let _ = codebook_KQ.index_copy_(0, &refresh.unused, &rewritten_RQ);
        }
    });
    refresh
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;
    use crate::draws::TorchDraws;
    use hlrp_torch::rng;
    use tch::Device;

    /// Codes whose vectors are far apart, and the codes nearest to them after a refresh with these counts.
    fn donors_of(counts: &[i64], donors: NsvqDonors) -> (Vec<i64>, Refresh) {
        let num_codes = counts.len() as i64;
        let before_KQ = Tensor::arange(num_codes, (Kind::Float, Device::Cpu)).unsqueeze(1)
            * Tensor::ones([1, 4], (Kind::Float, Device::Cpu));
        let codebook_KQ = before_KQ.copy();
        let refresh =
            rng::seeded(3, || rewrite_unused(&codebook_KQ, &Tensor::from_slice(counts), 0.1, donors, &mut TorchDraws))
                .unwrap();
        let nearest_K = codebook_KQ.mean_dim([1].as_slice(), false, Kind::Float).round().to_kind(Kind::Int64);
        let distance = (&codebook_KQ - nearest_K.unsqueeze(1)).abs();
        assert!(distance.max().double_value(&[]) < 6.0 * DONOR_STD, "each row is a donor plus a little noise");
        let used_KQ = |codebook_KQ: &Tensor| codebook_KQ.index_select(0, &refresh.used);
        assert!(used_KQ(&codebook_KQ).equal(&used_KQ(&before_KQ)), "rows in use stay");
        (Vec::try_from(nearest_K).unwrap(), refresh)
    }

    #[test]
    fn donors_are_drawn_by_their_use() {
        let mut counts = vec![0; 400];
        (counts[7], counts[100], counts[399]) = (600, 300, 100);
        counts[50] = 1; // above the cutoff of 0.1 * 1001 / 400
        let (nearest, refresh) = donors_of(&counts, NsvqDonors::Usage);
        assert_eq!(Vec::<i64>::try_from(&refresh.used).unwrap(), [7, 50, 100, 399]);
        assert_eq!(refresh.unused.size(), [396]);
        for (donor, count) in [(7, 600.0_f64), (50, 1.0), (100, 300.0), (399, 100.0)] {
            let expected = 396.0 * count / 1001.0;
            let found = nearest.iter().filter(|row| **row == donor).count() as f64 - 1.0;
            let std = (expected * (1.0 - count / 1001.0)).sqrt();
            assert!((found - expected).abs() < 4.0 * std + 1.0, "{found} copies of code {donor}, not about {expected}");
        }
    }

    #[test]
    fn a_code_that_is_rewritten_is_no_donor() {
        let mut counts = vec![0; 20];
        (counts[3], counts[4]) = (999, 1);
        let (nearest, refresh) = donors_of(&counts, NsvqDonors::Usage);
        assert_eq!(Vec::<i64>::try_from(&refresh.used).unwrap(), [3], "a use of 1 is below 0.1 * 1000 / 20");
        assert!(nearest.iter().all(|donor| *donor == 3), "{nearest:?}");
    }

    #[test]
    fn by_index_the_first_codes_in_use_are_donors() {
        let (nearest, _) = donors_of(&[9, 0, 9, 0, 9, 9], NsvqDonors::Index);
        assert_eq!(nearest, [0, 0, 2, 2, 4, 5]);
        let (nearest, _) = donors_of(&[0, 0, 9, 0, 9, 0], NsvqDonors::Index);
        let copies = |donor: i64| nearest.iter().filter(|row| **row == donor).count();
        assert_eq!((copies(2), copies(4)), (3, 3), "each is repeated alike: {nearest:?}");
    }
}
