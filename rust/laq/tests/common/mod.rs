//! A model small enough to run in milliseconds, and frames for it.
#![allow(dead_code)] // each test file uses its part

use hlrp_laq::{LaqModel, Parts};
use hlrp_schema::{DecoderConfig, LaqModelConfig, LatentAblation};
use tch::{Device, Kind, Tensor};

pub(crate) fn config() -> LaqModelConfig {
    let decoder = |enabled| DecoderConfig { enabled, depth: 1, loss_weight: 1.0, warmup_steps: 0 };
    LaqModelConfig {
        name: "mini".into(),
        image_size: 32,
        patch_size: 4,
        channels: 3,
        dim: 32,
        heads: 2,
        dim_head: 16,
        spatial_depth: 2,
        temporal_depth: 2,
        attn_dropout: 0.0,
        ff_dropout: 0.0,
        quant_dim: 8,
        codebook_size: 8,
        code_seq_len: 4,
        vq_discarding_threshold: 0.1,
        codebook_replace_schedule: vec![[2, 100]],
        usage_decay: 0.9,
        collapse_perplexity: 0.2,
        latent_ablation: LatentAblation::None,
        token_decoder: decoder(true),
        pixel_decoder: decoder(true),
        aux_decoder: decoder(true),
    }
}

/// A model that is the same for the same seed.
pub(crate) fn model(config: &LaqModelConfig, seed: i64) -> LaqModel {
    tch::manual_seed(seed);
    LaqModel::new(config, Parts::All, Device::Cpu).unwrap()
}

/// Random pairs `[B,2,3,32,32]` in [0, 1].
pub(crate) fn frames(num_samples: i64) -> Tensor {
    Tensor::rand([num_samples, 2, 3, 32, 32], (Kind::Float, Device::Cpu))
}

/// Whether two tensors are equal to the last bit.
pub(crate) fn same(a: &Tensor, b: &Tensor) -> bool {
    a.size() == b.size() && a.equal(b)
}
