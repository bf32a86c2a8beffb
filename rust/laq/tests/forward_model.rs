//! The forward model: what it predicts, from what, and what its loss trains.
#![allow(clippy::unwrap_used, non_snake_case)] // a test may panic

mod common;

use common::{config_with, model, same};
use hlrp_laq::{LaqModel, TorchDraws, TrainStep, eval_step, train_step};
use hlrp_nn::Pass;
use hlrp_torch::World;
use tch::{Device, Kind, Tensor, no_grad};

const FORWARD: [&str; 3] = [
    "model.decoders.forward.enabled=true",
    "model.decoders.forward.depth=1",
    "model.decoders.forward.average_decay=0.75",
];
const CONV: [&str; 4] =
    ["+model.encoder.conv={width: 8}", "model.decoder_network=conv", "model.spatial_depth=0", "model.temporal_depth=0"];
const DINOV3: &str = "+model.encoder.dinov3={model: null, hub_cache: null, sizes: {hidden_size: 16, intermediate_size: 32, \
                      num_hidden_layers: 1, num_attention_heads: 2, patch_size: 4, num_register_tokens: 2, layer_norm_eps: 1e-5, \
                      rope_theta: 100.0, hidden_act: gelu, use_gated_mlp: false, key_bias: false, mlp_bias: true}}";

fn with(overrides: &[&str]) -> LaqModel {
    model(&config_with(&[&FORWARD[..], overrides].concat()), 3)
}

/// Frames t, the later one of a pair, and the one a step after t.
fn samples(num_samples: i64) -> Tensor {
    Tensor::rand([num_samples, 3, 3, 32, 32], (Kind::Float, Device::Cpu))
}

fn step(model: &mut LaqModel, samples: &Tensor, number: u64) -> TrainStep {
    train_step(model, samples, number, &World::single(), &mut TorchDraws, &Pass::plain(true)).unwrap()
}

fn state(model: &LaqModel, scope: &str) -> Vec<(String, Tensor)> {
    let below = |(name, tensor): (String, Tensor)| Some((name.strip_prefix(scope)?.to_owned(), tensor.copy()));
    model.store().state().into_iter().filter_map(below).collect()
}

/// What the encoder says of each frame by itself, `[B,H,W,D]`.
fn features(model: &LaqModel, frames_BTCHW: &Tensor, time: i64) -> Tensor {
    let alone = frames_BTCHW.narrow(1, time, 1).repeat([1, 2, 1, 1, 1]);
    let encoded = no_grad(|| model.encode(&alone, &Pass::plain(false)));
    encoded.features_BTHWC.unwrap_or(encoded.tokens_BTHWD).select(1, 0)
}

fn value(x: &Tensor) -> f64 {
    x.double_value(&[])
}

#[test]
fn it_predicts_standardised_features_of_the_frame_one_step_later() {
    for encoder in [&[][..], &CONV, &[DINOV3]] {
        let mut model = with(encoder);
        let samples = samples(5);
        // At the first step the average is the encoder itself.
        let target_BHWC = features(&model, &samples, 2).to_kind(Kind::Double);
        let over_all = [0, 1, 2].as_slice();
        let mean_C = target_BHWC.mean_dim(over_all, false, Kind::Double);
        let std_C = target_BHWC.var_dim(over_all, false, false).sqrt();
        let standardised = |features: &Tensor| (features - &mean_C) / &std_C;

        let result = step(&mut model, &samples, 1);
        let predicted_BHWC = result.predictions.get("forward").unwrap().squeeze_dim(1);
        let error = |x: &Tensor| value(&(x - standardised(&target_BHWC)).square().mean(Kind::Double));
        let metric = result.metrics.iter().find(|(name, _)| *name == "forward_loss").unwrap();
        assert!((value(&metric.1) / error(&predicted_BHWC) - 1.0).abs() < 1e-4, "{encoder:?}");

        // Evaluation has the same scale; predicting no change is predicting the features of frame t.
        let evaluated = eval_step(&model, &samples);
        let no_change = model.decoders.losses(&model.decoders.no_change(&evaluated.target), &evaluated.target);
        let expected = error(&standardised(&features(&model, &samples, 0).to_kind(Kind::Double)));
        assert!((value(no_change.get("forward").unwrap()) / expected - 1.0).abs() < 1e-3, "{encoder:?}");
    }
}

#[test]
fn the_loss_does_not_fall_when_all_features_shrink() {
    let (mut whole, mut small) = (with(&[]), with(&[]));
    for (name, mut tensor) in small.store().state() {
        if name.contains("pixel_projection.3.") {
            let _ = no_grad(|| tensor.g_mul_scalar_(0.03));
        }
    }
    let samples = samples(6);
    let of_no_change = |model: &mut LaqModel| {
        step(model, &samples, 1);
        let target = eval_step(model, &samples).target;
        value(model.decoders.losses(&model.decoders.no_change(&target), &target).get("forward").unwrap())
    };
    let (whole, small) = (of_no_change(&mut whole), of_no_change(&mut small));
    assert!(whole > 0.1 && (whole / small - 1.0).abs() < 1e-2, "{whole} {small}");
}

#[test]
fn the_average_follows_the_encoder_once_per_step() {
    let mut model = with(&[]);
    let samples = samples(2);
    let average = |model: &LaqModel| state(model, "average_encoder.");
    let trained = |model: &LaqModel, name: &str| state(model, name).remove(0).1;
    for (name, tensor) in average(&model) {
        assert!(same(&tensor, &trained(&model, &name)), "{name} starts as a copy");
    }
    step(&mut model, &samples, 1);
    let before = average(&model);
    for (_, mut parameter) in model.store().parameters() {
        let _ = no_grad(|| parameter.g_add_scalar_(0.5));
    }
    for _micro_batch in 0..2 {
        step(&mut model, &samples, 2);
        for ((name, now), (_, before)) in average(&model).iter().zip(&before) {
            let expected = before * 0.75 + trained(&model, name) * 0.25;
            assert!(now.allclose(&expected, 1e-6, 1e-6, false), "{name}");
            assert!(!same(now, before), "{name} moved");
        }
    }
    let is_average = |name: &String| name.starts_with("average_encoder.");
    assert!(!model.store().parameters().iter().any(|(name, _)| is_average(name)));
    assert!(model.store().buffers().iter().any(|(name, _)| is_average(name)), "it is in every checkpoint");
    assert!(average(&with(&[DINOV3])).is_empty(), "a frozen backbone is its own average");
}

#[test]
fn its_loss_trains_the_codes_but_not_the_features_of_frame_t() {
    for encoder in [&[][..], &CONV] {
        let mut model = with(encoder);
        let samples = samples(4);
        let gradient = |model: &LaqModel, scope: &str| {
            let of_scope = model.store().parameters().into_iter().filter(|(name, _)| name.starts_with(scope));
            let sizes = of_scope.map(|(_, x)| x.grad()).filter(Tensor::defined).map(|x| value(&x.abs().max()));
            sizes.fold(0.0, f64::max)
        };
        let scope = if encoder.is_empty() { "pixel_projection." } else { "conv_encoder." };

        let encoded = model.encode(&samples.narrow(1, 0, 2), &Pass::plain(true));
        let latent = no_grad(|| model.quantizer.quantize(&encoded.change_BSQ));
        let tokens = no_grad(|| model.bottleneck.action_tokens(&latent.vectors_BSQ));
        let predictions = model.decode(&samples.narrow(1, 0, 2), &encoded, &tokens, &Pass::plain(true));
        predictions.get("forward").unwrap().square().sum(Kind::Float).backward();
        assert!(gradient(&model, "forward_decoder.") > 0.0);
        assert_eq!(gradient(&model, scope), 0.0, "frame t's features are given");

        step(&mut model, &samples, 1).losses.get("forward").unwrap().backward();
        for trained in [scope, "vq.project_in.", "vq.project_out.", "forward_to_features."] {
            assert!(gradient(&model, trained) > 0.0, "{trained} learns through the codes");
        }
    }
}

#[test]
fn a_pair_without_the_frame_between_has_no_such_loss() {
    let model = with(&[]);
    let result = eval_step(&model, &samples(2).narrow(1, 0, 2));
    assert!(result.losses.get("forward").is_none() && result.losses.get("pixel").is_some());
    assert!(model.decoders.losses(&model.decoders.no_change(&result.target), &result.target).get("forward").is_none());
}
