//! Refresh of codes that training does not use.

use crate::draws::Draws;
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

/// Rewrites each under-used row of the codebook with a used row plus a little noise.
///
/// Donors are the used rows in order of their index; where they are too few, they are repeated and shuffled.
pub(super) fn rewrite_unused(
    codebook_KQ: &Tensor,
    window_K: &Tensor,
    discarding_threshold: f64,
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
            let mut donors = refresh.used.shallow_clone();
            if num_used < num_unused {
                donors = donors.repeat([(num_unused + num_used - 1) / num_used]);
                donors = donors.index_select(0, &draws.permutation(donors.size()[0], device));
            }
            let donors_RQ = codebook_KQ.index_select(0, &donors.i(..num_unused));
            let rewritten_RQ = donors_RQ + draws.normal(&[num_unused, width], device) * DONOR_STD;
            let _ = codebook_KQ.index_copy_(0, &refresh.unused, &rewritten_RQ);
        }
    });
    refresh
}
