//! Latent actions as features of probes: those of the model, and those of fair random weights.
//!
//! Shape suffixes: N pairs, S code slots, Q width of a code vector, K codes.

use super::linear::Features;
use super::pairs::Pairs;
use crate::draws::TorchDraws;
use crate::encoders::dinov3;
use crate::model::{LaqModel, Parts};
use crate::quantizers::{in_float32, kmeans, nearest_rows};
use hlrp_torch::{World, rng};
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor, no_grad};

/// Latent actions of the pairs of the fit and of the test.
pub(super) struct Latents {
    /// What the quantizer sees.
    pub(super) vectors: Features,
    /// One 1 for each slot; none where the latent is continuous.
    pub(super) codes: Option<Features>,
}

impl Latents {
    /// Those of `model`.
    ///
    /// # Errors
    /// Another process is gone.
    pub(super) fn of(model: &LaqModel, pairs: &[Pairs; 2], world: &World) -> anyhow::Result<Self> {
        let [fit, test] = pairs;
        let changes = [fit.changes(model, world)?, test.changes(model, world)?];
        let num_codes = model.dims().codebook_size;
        Ok(no_grad(|| {
            let ids = changes.each_ref().map(|change_NSQ| model.quantizer.quantize(change_NSQ).ids_BS);
            let codes = match ids {
                [Some(fit_NS), Some(test_NS)] => Some(one_hot_slots([fit_NS, test_NS], num_codes)),
                _ => None,
            };
            Self { vectors: flat(changes.map(|change_NSQ| model.quantizer.normalised(&change_NSQ))), codes }
        }))
    }

    /// Whether every vector is finite.
    pub(super) fn are_finite(&self) -> bool {
        [&self.vectors.fit_NP, &self.vectors.test_MP].iter().all(|rows| rows.isfinite().all().int64_value(&[]) == 1)
    }

    /// Those of a model like `model` whose trained weights are fresh ones: changes with mean 0 and variance 1 over the pairs of the fit, and
    /// codes that are centres of them. A fresh quantizer by itself would give every pair the same code.
    ///
    /// # Errors
    /// Another process is gone.
    pub(super) fn of_random_weights(model: &LaqModel, pairs: &[Pairs; 2], world: &World) -> anyhow::Result<Self> {
        const SEED: u64 = 0;
        let device = model.store().device();
        let fresh = rng::seeded(SEED, || LaqModel::new(model.config(), Parts::Encoder, device))?;
        let pretrained: BTreeMap<String, Tensor> = model.store().state().into_iter().collect();
        no_grad(|| {
            for (name, tensor) in fresh.store().state().iter().filter(|(name, _)| name.starts_with(dinov3::FROZEN)) {
                if let Some(trained) = pretrained.get(name) {
                    tensor.shallow_clone().copy_(trained);
                }
            }
        });
        let [fit, test] = pairs;
        let [fit_NSQ, test_NSQ] = [fit.changes(&fresh, world)?, test.changes(&fresh, world)?];
        let size = [-1, model.dims().code_seq_len, model.dims().code_dim];
        let vectors = flat([fit_NSQ, test_NSQ]).standardised();
        let num_codes = model.dims().codebook_size;
        let codes = if num_codes == 0 {
            None
        } else {
            let shaped = [&vectors.fit_NP, &vectors.test_MP].map(|rows| rows.view(size).to_kind(Kind::Float));
            let centres = || in_float32(Device::Cpu, || kmeans(&shaped[0].flatten(0, 1), num_codes, &mut TorchDraws).0);
            let centres_KQ = rng::seeded(SEED, centres)?;
            Some(one_hot_slots(shaped.map(|change_NSQ| nearest_rows(&centres_KQ, &change_NSQ)), num_codes))
        };
        Ok(Self { vectors, codes })
    }
}

/// Vectors `[N,S,Q]` as features.
fn flat([fit_NSQ, test_NSQ]: [Tensor; 2]) -> Features {
    let rows = |x: Tensor| x.flatten(1, 2).to_device(Device::Cpu).to_kind(Kind::Double);
    Features { fit_NP: rows(fit_NSQ), test_MP: rows(test_NSQ) }
}

/// Codes `int64 [N,S]` as features: of each slot, those codes that occur in the fit.
fn one_hot_slots([fit_NS, test_NS]: [Tensor; 2], num_codes: i64) -> Features {
    let rows = |ids_NS: Tensor| {
        let codes_K = Tensor::arange(num_codes, (Kind::Int64, Device::Cpu));
        ids_NS.to_device(Device::Cpu).unsqueeze(-1).eq_tensor(&codes_K).flatten(1, 2)
    };
    let (fit_NP, test_MP) = (rows(fit_NS), rows(test_NS));
    let occur_P = fit_NP.any_dim(0, false).nonzero().squeeze_dim(1);
    let of_occurring = |rows: &Tensor| rows.index_select(1, &occur_P).to_kind(Kind::Double);
    Features { fit_NP: of_occurring(&fit_NP), test_MP: of_occurring(&test_MP) }
}
