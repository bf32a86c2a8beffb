//! Models of several cameras beside models of one: what a view is shown, and what is said of it.
#![allow(clippy::unwrap_used, non_snake_case)] // a test may panic

mod common;

use common::{config_with, model, same};
use hlrp_laq::{FlowTeacher, LaqModel, LucasKanade, eval_step, load_teachers};
use hlrp_nn::Pass;
use tch::{Device, Kind, Tensor, no_grad};

const CAMERAS: [&str; 3] = ["primary", "second", "third"];
const SIDE: i64 = 32;
const GRID: i64 = 8;
const DINOV3: &str = "+model.encoder.dinov3={model: null, hub_cache: null, sizes: {hidden_size: 16, intermediate_size: 32, \
                      num_hidden_layers: 1, num_attention_heads: 2, patch_size: 4, num_register_tokens: 2, layer_norm_eps: 1e-5, \
                      rope_theta: 100.0, hidden_act: gelu, use_gated_mlp: false, key_bias: false, mlp_bias: true}}";
const FLOW: [&str; 3] =
    ["model.decoders.flow.enabled=true", "model.decoders.flow.depth=1", "model.decoders.flow.teacher=lucas_kanade"];

/// The model, `num_views` cameras side by side. The configuration of a model alone is not compared with a dataset's cameras.
fn of_views(num_views: usize, overrides: &[&str]) -> LaqModel {
    let mut config = config_with(overrides);
    config.cameras = CAMERAS[..num_views].iter().map(|role| (*role).to_owned()).collect();
    model(&config, 2)
}

fn frames(num_views: usize) -> Tensor {
    Tensor::rand([2, 2, 3, SIDE, SIDE * num_views as i64], (Kind::Float, Device::Cpu))
}

fn view_of(x: &Tensor, view: usize, width: i64, dim: i64) -> Tensor {
    x.narrow(dim, view as i64 * width, width)
}

#[test]
fn a_backbone_sees_each_view_by_itself() {
    for num_views in 1..=3 {
        let (wide, alone) = (of_views(num_views, &[DINOV3]), of_views(1, &[DINOV3]));
        let of_wide = wide.store().state();
        for (name, mut tensor) in alone.store().state() {
            if name.starts_with("dino_feature_extractor.") {
                let (_, other) = of_wide.iter().find(|(other, _)| *other == name).unwrap();
                no_grad(|| tensor.copy_(other));
            }
        }
        let frames = frames(num_views);
        let features = |model: &LaqModel, frames: &Tensor| {
            no_grad(|| model.encode(frames, &Pass::plain(false))).features_BTHWC.unwrap()
        };
        let found = features(&wide, &frames);
        assert_eq!(found.size(), [2, 2, GRID, GRID * num_views as i64, 16]);
        for view in 0..num_views {
            let expected = features(&alone, &view_of(&frames, view, SIDE, 4));
            assert!(
                view_of(&found, view, GRID, 3).allclose(&expected, 1e-5, 1e-5, false),
                "view {view} of {num_views}"
            );
        }
    }
}

#[test]
fn the_flow_of_a_view_is_that_of_its_frames_alone() {
    for num_views in 1..=3 {
        let mut model = of_views(num_views, &FLOW);
        load_teachers(&mut model).unwrap();
        let frames = frames(num_views);
        let found = model.decoders.get("flow").unwrap().teacher_flow(&frames).unwrap();
        for view in 0..num_views {
            let expected = LucasKanade.flow(&view_of(&frames, view, SIDE, 4));
            assert!(same(&view_of(&found, view, SIDE, 3), &expected), "view {view} of {num_views}");
        }
        let result = eval_step(&model, &frames);
        assert_eq!(result.predictions.get("flow").unwrap().size(), [2, 2, SIDE, SIDE * num_views as i64]);
        assert!(result.losses.get("flow").unwrap().double_value(&[]) > 0.0);
    }
}

#[test]
fn a_forward_model_predicts_the_features_of_every_view() {
    let forward = ["model.decoders.forward.enabled=true", "model.decoders.forward.depth=1"];
    for encoder in [&[][..], &[DINOV3]] {
        for num_views in 1..=3 {
            let model = of_views(num_views, &[&forward[..], encoder].concat());
            let samples = Tensor::cat(&[&frames(num_views), &frames(num_views).narrow(1, 0, 1)], 1);
            let target = eval_step(&model, &samples).target.step_features_BTHWC.unwrap();
            assert_eq!(target.size()[..4], [2, 2, GRID, GRID * num_views as i64]);
            let next = samples.narrow(1, 2, 1).repeat([1, 3, 1, 1, 1]);
            let again = eval_step(&model, &next).target.step_features_BTHWC.unwrap();
            assert!(again.select(1, 0).allclose(&target.select(1, 1), 1e-5, 1e-5, false), "each frame by itself");
        }
    }
}
