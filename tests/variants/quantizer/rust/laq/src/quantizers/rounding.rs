//! Rounding: each dimension of the change is bounded and rounded to one of a few levels (finite scalar quantization, Mentzer et al. 2023).
//!
//! The codebook is implicit: its codes are all combinations of levels, so that none can fall out of use for good. The gradient passes the
//! rounding unchanged.
//!
//! Shape suffixes: B samples, S code slots, K codes, Q width of a code vector.

use super::usage::{CodeUsage, count_codes, perplexity};
use super::{Codes, Latent, Quantizer, Scale, TrainContext, TrainPass, codes_curve, in_float32};
use crate::dims::Dims;
use hlrp_nn::Scope;
use hlrp_schema::RoundingConfig;
use hlrp_torch::TorchError;
use hlrp_track::metrics::MetricSpec;
use tch::{Device, Kind, Tensor};

/// A scalar quantizer for each dimension.
pub(super) struct Rounding {
    levels: i64,
    num_codes: i64,
    /// `int64 [Q]`: by how much the code changes from one level of a dimension to the next.
    place_Q: Tensor,
    usage: CodeUsage,
    device: Device,
}

impl Rounding {
    /// The quantizer has no parameters; `scope` holds the counts of its codes.
    pub(super) fn new(scope: &Scope<'_>, dims: &Dims, usage_decay: f64, config: &RoundingConfig) -> Self {
        let places: Vec<i64> = (0..dims.code_dim).map(|dim| config.levels.pow(dim as u32)).collect();
        Self {
            levels: config.levels,
            num_codes: dims.codebook_size,
            place_Q: Tensor::from_slice(&places).to_device(scope.device()),
            usage: CodeUsage::new(scope, dims.codebook_size, usage_decay),
            device: scope.device(),
        }
    }

    /// Distance between the lowest and the highest level, in levels.
    fn span(&self) -> f64 {
        (self.levels - 1) as f64
    }

    /// The change between the lowest level, 0, and the highest, `[B,S,Q]` float32.
    fn bounded(&self, change_BSQ: &Tensor) -> Tensor {
        (change_BSQ.to_kind(Kind::Float).tanh() + 1.0) * (self.span() / 2.0)
    }

    /// Vectors in [−1, 1] of levels `[…,Q]`.
    fn vectors_of(&self, levels: &Tensor) -> Tensor {
        levels * (2.0 / self.span()) - 1.0
    }

    /// Codes `int64 […]` of levels `[…,Q]`.
    fn ids_of(&self, levels: &Tensor) -> Tensor {
        (levels.to_kind(Kind::Int64) * &self.place_Q).sum_dim_intlist([-1].as_slice(), false, Kind::Int64)
    }
}

impl Quantizer for Rounding {
    fn train_pass(&mut self, change_BSQ: &Tensor, context: &mut TrainContext<'_>) -> Result<TrainPass, TorchError> {
        let (bounded_BSQ, rounded_BSQ) = in_float32(self.device, || {
            let bounded_BSQ = self.bounded(change_BSQ);
            let rounded_BSQ = bounded_BSQ.round().detach();
            (bounded_BSQ, rounded_BSQ)
        });
        let error_BSQ = &rounded_BSQ - bounded_BSQ.detach();
        let vectors_BSQ = self.vectors_of(&(&bounded_BSQ + &error_BSQ));
        let ids_BS = self.ids_of(&rounded_BSQ);

        let counts_K = count_codes(&ids_BS, self.num_codes);
        context.world.all_reduce(&counts_K)?;
        self.usage.add(&counts_K);
        let metrics = vec![
            ("vq_perplexity", perplexity(&counts_K)),
            ("num_unique_codes", counts_K.gt(0).sum(Kind::Float)),
            ("rounding_error", error_BSQ.square().mean(Kind::Float)),
        ];
        let latent = Latent { vectors_BSQ, ids_BS: Some(ids_BS) };
        Ok(TrainPass { latent, loss: None, metrics, row_resets: Vec::new() })
    }

    fn metrics(&self) -> Vec<MetricSpec> {
        vec![
            MetricSpec::detail("train/num_unique_codes").higher_is_better().drawn_in(&codes_curve()),
            MetricSpec::new("train/rounding_error", "squared rounding error, in levels").lower_is_better(),
        ]
    }

    fn quantize(&self, change_BSQ: &Tensor) -> Latent {
        let rounded_BSQ = in_float32(self.device, || self.bounded(change_BSQ).round());
        Latent { vectors_BSQ: self.vectors_of(&rounded_BSQ), ids_BS: Some(self.ids_of(&rounded_BSQ)) }
    }

    /// Over all codes, each with the same weight.
    fn scale(&self) -> Scale {
        let all_KQ = self.vectors(&Tensor::arange(self.num_codes, (Kind::Int64, self.device)));
        let dims = [0].as_slice();
        Scale { mean_Q: all_KQ.mean_dim(dims, false, Kind::Float), std_Q: all_KQ.std_dim(dims, false, false) }
    }

    fn codes(&self) -> Option<&dyn Codes> {
        Some(self)
    }
}

impl Codes for Rounding {
    fn num_codes(&self) -> i64 {
        self.num_codes
    }

    fn vectors(&self, ids: &Tensor) -> Tensor {
        let levels = ids.unsqueeze(-1).floor_divide(&self.place_Q).remainder(self.levels);
        self.vectors_of(&levels.to_kind(Kind::Float))
    }

    /// The dimensions are independent, so the nearest code has the nearest level in each.
    fn nearest(&self, standardised_BSQ: &Tensor, scale: &Scale) -> Tensor {
        let vectors_BSQ = standardised_BSQ * &scale.std_Q + &scale.mean_Q;
        let levels_BSQ = (vectors_BSQ + 1.0) * (self.span() / 2.0);
        self.ids_of(&levels_BSQ.round().clamp(0.0, self.span()))
    }

    fn usage(&self) -> &CodeUsage {
        &self.usage
    }

    fn remedy(&self) -> &'static str {
        "use fewer levels (model.quantizer.rounding.levels)"
    }
}
