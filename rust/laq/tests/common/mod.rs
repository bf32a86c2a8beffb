//! A model small enough to run in milliseconds, and frames for it.
#![allow(dead_code)] // each test file uses its part

use hlrp_config::compose;
use hlrp_laq::{LaqModel, Parts};
use hlrp_schema::{LaqConfig, LaqModelConfig, PROJECT};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// `laq_tiny`, smaller still, with every decoder.
pub(crate) const MINI: [&str; 13] = [
    "experiment=laq_tiny",
    "model=laq_pixel_tiny",
    "model.image_size=32",
    "model.patch_size=4",
    "model.dim=32",
    "model.heads=2",
    "model.dim_head=16",
    "model.decoders.token.enabled=true",
    "model.decoders.token.depth=1",
    "model.decoders.pixel.depth=1",
    "model.decoders.aux.depth=1",
    "model.quantizer.usage_decay=0.9",
    "model.quantizer.nsvq.refresh_schedule=[]",
];

/// The mini model with `overrides`.
pub(crate) fn config_with(overrides: &[&str]) -> LaqModelConfig {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
    let overrides: Vec<String> = MINI.iter().chain(overrides).map(|text| (*text).to_owned()).collect();
    let config: LaqConfig = compose(&PROJECT, &root, "config", &overrides).unwrap().extract().unwrap();
    config.model
}

pub(crate) fn config() -> LaqModelConfig {
    config_with(&[])
}

/// A model that is the same for the same seed.
pub(crate) fn model(config: &LaqModelConfig, seed: i64) -> LaqModel {
    tch::manual_seed(seed);
    LaqModel::new(config, Parts::All, Device::Cpu)
}

/// Random pairs `[B,2,3,32,32]` in [0, 1].
pub(crate) fn frames(num_samples: i64) -> Tensor {
    Tensor::rand([num_samples, 2, 3, 32, 32], (Kind::Float, Device::Cpu))
}

/// Whether two tensors are equal to the last bit.
pub(crate) fn same(a: &Tensor, b: &Tensor) -> bool {
    a.size() == b.size() && a.equal(b)
}
