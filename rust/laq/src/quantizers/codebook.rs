//! What quantizers with a codebook share: the codes as rows of a table, distances, and k-means.
//!
//! Shape suffixes: B samples, S code slots, N vectors, K codes, Q width of a code vector.

use super::usage::CodeUsage;
use super::{Codes, Latent, Scale, TrainContext, in_float32};
use crate::draws::Draws;
use hlrp_torch::TorchError;
use tch::{Kind, Tensor, no_grad};

/// Name of a codebook within its quantizer's scope.
pub const CODEBOOK: &str = "codebooks";
/// Keeps a dimension finite that is the same in all codes.
const MIN_STD: f64 = 1e-6;
/// Iterations of k-means.
const NUM_ITERATIONS: usize = 10;

/// Codes that are the rows of a table.
pub(super) struct Codebook {
    /// `float32 [K,Q]`.
    pub(super) rows_KQ: Tensor,
    /// How often training used each.
    pub(super) usage: CodeUsage,
    /// As [`Codes::remedy`].
    pub(super) remedy: &'static str,
}

impl Codebook {
    /// The code nearest to each change `[B,S,Q]`, without noise.
    pub(super) fn quantize(&self, change_BSQ: &Tensor) -> Latent {
        let ids_BS = nearest_rows(&self.rows_KQ, change_BSQ);
        Latent { vectors_BSQ: self.vectors(&ids_BS), ids_BS: Some(ids_BS) }
    }

    /// Sets the codes to centres of `change_NQ`, alike in all processes. Returns how many changes each has, `float32 [K]`.
    ///
    /// # Errors
    /// Another process is gone.
    pub(super) fn start(&self, change_NQ: &Tensor, context: &mut TrainContext<'_>) -> Result<Tensor, TorchError> {
        let (centres_KQ, counts_K) = kmeans(change_NQ, self.num_codes(), context.draws);
        context.world.broadcast(&centres_KQ)?;
        context.world.broadcast(&counts_K)?;
        no_grad(|| self.rows_KQ.shallow_clone().copy_(&centres_KQ));
        Ok(counts_K)
    }

    /// Mean and std over the codes, each with the same weight.
    pub(super) fn scale(&self) -> Scale {
        let dims = [0].as_slice();
        Scale {
            mean_Q: self.rows_KQ.mean_dim(dims, false, Kind::Float),
            std_Q: self.rows_KQ.std_dim(dims, false, false).clamp_min(MIN_STD),
        }
    }
}

impl Codes for Codebook {
    fn num_codes(&self) -> i64 {
        self.rows_KQ.size()[0]
    }

    fn vectors(&self, ids_BS: &Tensor) -> Tensor {
        Tensor::embedding(&self.rows_KQ, ids_BS, -1, false, false)
    }

    fn nearest(&self, standardised_BSQ: &Tensor, scale: &Scale) -> Tensor {
        let rows_KQ = scale.standardise(&self.rows_KQ);
        let difference_BSKQ = standardised_BSQ.unsqueeze(2) - rows_KQ.unsqueeze(0).unsqueeze(0);
        difference_BSKQ.square().sum_dim_intlist([3].as_slice(), false, Kind::Float).argmin(2, false)
    }

    fn usage(&self) -> &CodeUsage {
        &self.usage
    }

    fn remedy(&self) -> &'static str {
        self.remedy
    }
}

/// Squared distance of each vector `[…,Q]` to each code, `[…,K]`, in float32; carries no gradient.
pub(super) fn distances(codebook_KQ: &Tensor, vectors: &Tensor) -> Tensor {
    let squares = |x: &Tensor, keep| x.square().sum_dim_intlist([-1].as_slice(), keep, Kind::Float);
    in_float32(codebook_KQ.device(), || {
        no_grad(|| squares(vectors, true) - vectors.matmul(&codebook_KQ.tr()) * 2.0 + squares(codebook_KQ, false))
    })
}

/// The row of `codebook_KQ` nearest to each vector `[…,Q]`, `int64 […]`.
pub(crate) fn nearest_rows(codebook_KQ: &Tensor, vectors: &Tensor) -> Tensor {
    distances(codebook_KQ, vectors).argmin(-1, false)
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
pub(crate) fn kmeans(vectors_NQ: &Tensor, num_codes: i64, draws: &mut dyn Draws) -> (Tensor, Tensor) {
    no_grad(|| {
        let mut centres_KQ = random_rows(vectors_NQ, num_codes, draws);
        let mut counts_K = Tensor::new();
        for _ in 0..NUM_ITERATIONS {
            let one_hot_NK = one_hot(&nearest_rows(&centres_KQ, vectors_NQ), num_codes);
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
