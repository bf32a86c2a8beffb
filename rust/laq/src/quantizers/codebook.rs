//! What quantizers with a codebook share: distances, look-up, scale, and k-means.
//!
//! Shape suffixes: B samples, S code slots, N vectors, K codes, Q width of a code vector.

use super::{Scale, in_float32};
use crate::draws::Draws;
use tch::{Kind, Tensor, no_grad};

/// Name of a codebook within its quantizer's scope.
pub const CODEBOOK: &str = "codebooks";
/// Keeps a dimension finite that is the same in all codes.
const MIN_STD: f64 = 1e-6;
/// Iterations of k-means.
const NUM_ITERATIONS: usize = 10;

/// Squared distance of each vector `[…,Q]` to each code, `[…,K]`, in float32; carries no gradient.
pub(super) fn distances(codebook_KQ: &Tensor, vectors: &Tensor) -> Tensor {
    let squares = |x: &Tensor, keep| x.square().sum_dim_intlist([-1].as_slice(), keep, Kind::Float);
    in_float32(codebook_KQ.device(), || {
        no_grad(|| squares(vectors, true) - vectors.matmul(&codebook_KQ.tr()) * 2.0 + squares(codebook_KQ, false))
    })
}

/// Rows `[…,Q]` of codes `int64 […]`.
pub(super) fn look_up(codebook_KQ: &Tensor, ids: &Tensor) -> Tensor {
    Tensor::embedding(codebook_KQ, ids, -1, false, false)
}

/// Mean and std over the rows of a codebook, each with the same weight.
pub(super) fn scale_of_rows(codebook_KQ: &Tensor) -> Scale {
    let dims = [0].as_slice();
    Scale {
        mean_Q: codebook_KQ.mean_dim(dims, false, Kind::Float),
        std_Q: codebook_KQ.std_dim(dims, false, false).clamp_min(MIN_STD),
    }
}

/// The codes `int64 [B,S]` whose standardised rows are nearest to `standardised_BSQ`.
pub(super) fn nearest_rows(codebook_KQ: &Tensor, standardised_BSQ: &Tensor, scale: &Scale) -> Tensor {
    let codebook_KQ = scale.standardise(codebook_KQ);
    let difference_BSKQ = standardised_BSQ.unsqueeze(2) - codebook_KQ.unsqueeze(0).unsqueeze(0);
    difference_BSKQ.square().sum_dim_intlist([3].as_slice(), false, Kind::Float).argmin(2, false)
}

/// `float32 [N,K]`: 1 where a vector has a code.
pub(super) fn one_hot(ids_N: &Tensor, num_codes: i64) -> Tensor {
    let codes_K = Tensor::arange(num_codes, (Kind::Int64, ids_N.device()));
    ids_N.unsqueeze(1).eq_tensor(&codes_K).to_kind(Kind::Float)
}

/// `num` of the rows of `vectors_NQ` in random order; rows repeat where there are fewer.
pub(super) fn random_rows(vectors_NQ: &Tensor, num: i64, draws: &mut dyn Draws) -> Tensor {
    let (num_rows, device) = (vectors_NQ.size()[0], vectors_NQ.device());
    let order = draws.permutation(num_rows, device);
    let positions = Tensor::arange(num, (Kind::Int64, device)).remainder(num_rows);
    vectors_NQ.index_select(0, &order.index_select(0, &positions))
}

/// `num_codes` centres of `vectors_NQ` `[K,Q]` and how many vectors each has `[K]` (float32): Lloyd's algorithm from
/// random rows. A centre that loses its vectors stays where it is.
pub(super) fn kmeans(vectors_NQ: &Tensor, num_codes: i64, draws: &mut dyn Draws) -> (Tensor, Tensor) {
    no_grad(|| {
        let mut centres_KQ = random_rows(vectors_NQ, num_codes, draws);
        let mut counts_K = Tensor::new();
        for _ in 0..NUM_ITERATIONS {
            let one_hot_NK = one_hot(&distances(&centres_KQ, vectors_NQ).argmin(-1, false), num_codes);
            counts_K = one_hot_NK.sum_dim_intlist([0].as_slice(), false, Kind::Float);
            let means_KQ = one_hot_NK.tr().matmul(vectors_NQ) / counts_K.clamp_min(1.0).unsqueeze(1);
            centres_KQ = means_KQ.where_self(&counts_K.gt(0).unsqueeze(1), &centres_KQ);
        }
        (centres_KQ, counts_K)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;
    use crate::draws::TorchDraws;
    use tch::Device;

    #[test]
    fn kmeans_finds_separate_groups() {
        tch::manual_seed(3);
        let groups_KQ = Tensor::from_slice(&[0.0_f32, 0.0, 10.0, 0.0, 0.0, 10.0]).view([3, 2]);
        let vectors_NQ = groups_KQ.repeat([20, 1]) + Tensor::randn([60, 2], (Kind::Float, Device::Cpu)) * 0.1;
        let (centres_KQ, counts_K) = kmeans(&vectors_NQ, 3, &mut TorchDraws);
        assert_eq!(counts_K.sum(Kind::Float).double_value(&[]), 60.0);
        let nearest = distances(&centres_KQ, &groups_KQ).amin([-1].as_slice(), false);
        assert!(nearest.max().double_value(&[]) < 0.05, "{nearest:?}");
    }

    #[test]
    fn fewer_vectors_than_codes_are_repeated() {
        let vectors_NQ = Tensor::from_slice(&[1.0_f32, 2.0]).view([2, 1]);
        assert_eq!(random_rows(&vectors_NQ, 5, &mut TorchDraws).size(), [5, 1]);
    }
}
