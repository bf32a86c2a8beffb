//! Finite scalar quantization (Mentzer et al. 2023): each dimension of the change is bounded and rounded to one of a few
//! levels. The codebook is implicit, all combinations of levels, so that no code can be lost. The gradient passes the
//! rounding unchanged. The formulas are those of `vector-quantize-pytorch`.
//!
//! Shape suffixes: B samples, S code slots, K codes, Q width of a code vector.

use super::usage::{CodeUsage, count_codes};
use super::{Codes, Latent, Quantizer, Scale, TrainContext, TrainPass, in_float32};
use crate::dims::Dims;
use hlrp_nn::Scope;
use hlrp_schema::FsqConfig;
use hlrp_torch::TorchError;
use tch::{Device, Kind, Tensor};

/// By how much the bounds exceed the outermost levels.
const EPS: f64 = 1e-3;

/// A scalar quantizer for each dimension; it has no parameters.
pub struct Fsq {
    num_codes: i64,
    levels_Q: Tensor,
    /// `int64 [Q]`: by how much the code changes from one level of a dimension to the next.
    place_Q: Tensor,
    /// `[Q]` half of the distance between the bounds, and the shift that puts 0 on a level or halfway between two.
    half_Q: Tensor,
    offset_Q: Tensor,
    shift_Q: Tensor,
    /// `[Q]` levels below the middle one.
    width_Q: Tensor,
    usage: CodeUsage,
    device: Device,
}

impl Fsq {
    /// `scope` holds the counts of its codes; `usage_decay` as in [`CodeUsage`].
    pub fn new(scope: &Scope<'_>, dims: &Dims, usage_decay: f64, config: &FsqConfig) -> Self {
        let places: Vec<i64> = config
            .levels
            .iter()
            .scan(1, |place, levels| {
                let own = *place;
                *place *= levels;
                Some(own)
            })
            .collect();
        let device = scope.device();
        let of = |value: fn(i64) -> f64| {
            let values: Vec<f32> = config.levels.iter().map(|levels| value(*levels) as f32).collect();
            Tensor::from_slice(&values).to_device(device)
        };
        let half_Q = of(|levels| (levels - 1) as f64 * (1.0 + EPS) / 2.0);
        let offset_Q = of(|levels| if levels % 2 == 0 { 0.5 } else { 0.0 });
        Self {
            num_codes: dims.codebook_size,
            levels_Q: Tensor::from_slice(&config.levels).to_device(device),
            place_Q: Tensor::from_slice(&places).to_device(device),
            shift_Q: (&offset_Q / &half_Q).atanh(),
            half_Q,
            offset_Q,
            width_Q: of(|levels| (levels / 2) as f64),
            usage: CodeUsage::new(scope, dims.codebook_size, usage_decay),
            device,
        }
    }

    /// Changes between the bounds, where levels are whole numbers around 0.
    fn bounded(&self, change_BSQ: &Tensor) -> Tensor {
        (change_BSQ + &self.shift_Q).tanh() * &self.half_Q - &self.offset_Q
    }

    /// Codes `int64 […]` of rounded values `[…,Q]`.
    fn ids_of(&self, rounded: &Tensor) -> Tensor {
        let levels = (rounded + &self.width_Q).to_kind(Kind::Int64);
        (levels * &self.place_Q).sum_dim_intlist([-1].as_slice(), false, Kind::Int64)
    }
}

impl Quantizer for Fsq {
    fn train_pass(&mut self, change_BSQ: &Tensor, context: &mut TrainContext<'_>) -> Result<TrainPass, TorchError> {
        let (vectors_BSQ, rounded_BSQ) = in_float32(self.device, || {
            let bounded_BSQ = self.bounded(change_BSQ);
            let rounded_BSQ = bounded_BSQ.round().detach();
            let passed_BSQ = &bounded_BSQ + (&rounded_BSQ - &bounded_BSQ).detach();
            (passed_BSQ / &self.width_Q, rounded_BSQ)
        });
        let ids_BS = self.ids_of(&rounded_BSQ);
        let counts_K = count_codes(&ids_BS, self.num_codes);
        context.world.all_reduce(&counts_K)?;
        self.usage.add(&counts_K);
        let latent = Latent { vectors_BSQ, ids_BS: Some(ids_BS) };
        Ok(TrainPass { latent, loss: None, metrics: self.usage.metrics(&counts_K), row_resets: Vec::new() })
    }

    fn quantize(&self, change_BSQ: &Tensor) -> Latent {
        let rounded_BSQ = in_float32(self.device, || self.bounded(change_BSQ).round());
        Latent { vectors_BSQ: &rounded_BSQ / &self.width_Q, ids_BS: Some(self.ids_of(&rounded_BSQ)) }
    }

    /// Over all codes, each with the same weight. Dimensions are independent, so each has the moments of its levels.
    fn scale(&self) -> Scale {
        let levels_Q = self.levels_Q.to_kind(Kind::Float);
        let middle_Q = (&levels_Q - 1.0) / 2.0;
        Scale {
            mean_Q: (middle_Q - &self.width_Q) / &self.width_Q,
            std_Q: ((levels_Q.square() - 1.0) / 12.0).sqrt() / &self.width_Q,
        }
    }

    fn codes(&self) -> Option<&dyn Codes> {
        Some(self)
    }
}

impl Codes for Fsq {
    fn num_codes(&self) -> i64 {
        self.num_codes
    }

    fn vectors(&self, ids: &Tensor) -> Tensor {
        let levels = ids.unsqueeze(-1).floor_divide(&self.place_Q).remainder_tensor(&self.levels_Q);
        (levels.to_kind(Kind::Float) - &self.width_Q) / &self.width_Q
    }

    /// The nearest code has the nearest level in each dimension.
    fn nearest(&self, standardised_BSQ: &Tensor, scale: &Scale) -> Tensor {
        let rounded_BSQ = ((standardised_BSQ * &scale.std_Q + &scale.mean_Q) * &self.width_Q).round();
        let highest_Q = self.levels_Q.to_kind(Kind::Float) - 1.0 - &self.width_Q;
        self.ids_of(&rounded_BSQ.maximum(&-&self.width_Q).minimum(&highest_Q))
    }

    fn usage(&self) -> &CodeUsage {
        &self.usage
    }

    fn remedy(&self) -> &'static str {
        "set model.quantizer.normalization to batch_norm, use fewer levels (model.quantizer.fsq.levels)"
    }
}
