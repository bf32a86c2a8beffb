//! A frozen part gets no gradient and does not move.

use crate::fixtures::{FixedNoise, distance, expert, expert_section, expert_with, observation, targets};
use hlrp_config::Hint;
use hlrp_nn::Pass;
use hlrp_schema::OptimizerConfig;
use hlrp_schema::policy::{BackboneSpec, ExpertSpec, Mode, ModelSpec, ObjectiveSpec};
use hlrp_train::Optimizer;
use hlrp_vla::{Architecture, BACKBONE, ExpertModel, freeze};
use std::collections::BTreeMap;
use tch::{Device, Tensor};

const OPTIMIZER: OptimizerConfig = OptimizerConfig { lr: 1e-2, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.1 };

fn model() -> ExpertModel {
    model_of(&expert())
}

fn model_of(spec: &ModelSpec) -> ExpertModel {
    tch::manual_seed(7);
    ExpertModel::new(spec, Device::Cpu).unwrap()
}

/// [`expert`] with parts of the backbone frozen.
fn with_frozen(train_expert_only: bool, freeze_vision_encoder: bool, base: ModelSpec) -> ModelSpec {
    let backbone = BackboneSpec { train_expert_only, freeze_vision_encoder, ..base.backbone };
    ModelSpec { backbone, ..base }
}

/// One optimizer step; returns the names of what moved.
fn moved_by_a_step(model: &ExpertModel, mode: Mode) -> Vec<String> {
    let copy = || -> BTreeMap<String, Tensor> {
        model.store().state().into_iter().map(|(name, tensor)| (name, tensor.detach().copy())).collect()
    };
    let before = copy();
    let objective = ObjectiveSpec { mode, latent_loss_weight: 1.0, action_loss_weight: 1.0 };
    let loss = model.loss(&observation(), &targets(), &objective, &mut FixedNoise::new(0), &Pass::plain(true)).unwrap();
    let optimizer = Optimizer::new(&model.store().parameters(), &OPTIMIZER).unwrap();
    loss.total.backward();
    optimizer.step(OPTIMIZER.lr).unwrap();
    let after = copy();
    before.into_iter().filter(|(name, tensor)| distance(tensor, &after[name]) > 0.0).map(|(name, _)| name).collect()
}

#[test]
fn a_frozen_backbone_gets_no_gradient_and_does_not_move() {
    let model = model_of(&with_frozen(true, true, expert()));
    freeze(model.store(), &model.frozen()).unwrap();
    let moved = moved_by_a_step(&model, Mode::Multitask);
    for (name, tensor) in model.store().state() {
        let is_frozen = name.starts_with(BACKBONE);
        assert_eq!(tensor.grad().defined(), !is_frozen, "{name}");
        assert_eq!(moved.contains(&name), !is_frozen, "{name}");
    }
}

#[test]
fn a_training_backbone_leaves_out_what_the_loss_cannot_reach() {
    let section = ExpertSpec { train_state_proj: false, ..expert_section() };
    let model = model_of(&with_frozen(false, true, expert_with(section)));
    freeze(model.store(), &model.frozen()).unwrap();
    moved_by_a_step(&model, Mode::Multitask);
    let without_gradient: Vec<String> = model
        .store()
        .parameters()
        .into_iter()
        .filter(|(_, tensor)| !tensor.grad().defined())
        .map(|(name, _)| name)
        .collect();
    assert!(without_gradient.is_empty(), "{without_gradient:?}");
    for part in ["lm_head", "model.text_model.norm", "model.text_model.layers.3", "model.vision_model"] {
        let frozen = model.store().buffers().iter().any(|(name, _)| name.starts_with(&format!("{BACKBONE}.{part}.")));
        assert!(frozen, "{part}");
    }
}

#[test]
fn heads_that_a_mode_does_not_use_can_be_frozen() {
    for mode in [Mode::Latent, Mode::Actions] {
        let model = model_of(&with_frozen(true, false, expert()));
        let mut patterns = model.frozen();
        patterns.extend(model.unused_in(mode));
        freeze(model.store(), &patterns).unwrap();
        let moved = moved_by_a_step(&model, mode);
        let names: Vec<String> = model.store().parameters().into_iter().map(|(name, _)| name).collect();
        assert_eq!(moved.len(), names.len(), "{mode:?}");
        assert!(names.iter().all(|name| moved.contains(name)));
    }
}

#[test]
fn a_rule_that_freezes_nothing_is_refused_and_nothing_is_frozen() {
    let model = model();
    let num_trained = model.store().parameters().len();
    // A part of a name is not a module.
    let patterns = [BACKBONE.to_owned(), "model.state".to_owned()];
    let error = freeze(model.store(), &patterns).unwrap_err();
    assert!(error.to_string().contains("`model.state`") && error.hint().is_some(), "{error}");
    assert_eq!(model.store().parameters().len(), num_trained);
}

#[test]
fn freezing_the_backbone_changes_no_other_gradient() {
    // A frozen backbone runs images and instruction apart from the state; the mathematics is the same.
    let (weights, observation, targets) = (model().store().state(), observation(), targets());
    let gradients = |is_frozen: bool| -> BTreeMap<String, Tensor> {
        let model = model();
        model.store().load_strict(&weights).unwrap();
        if is_frozen {
            freeze(model.store(), &[BACKBONE.to_owned()]).unwrap();
        }
        let objective = ObjectiveSpec { mode: Mode::Multitask, latent_loss_weight: 1.0, action_loss_weight: 1.0 };
        let loss = model.loss(&observation, &targets, &objective, &mut FixedNoise::new(0), &Pass::plain(true)).unwrap();
        loss.total.backward();
        model
            .store()
            .state()
            .into_iter()
            .filter(|(_, tensor)| tensor.grad().defined())
            .map(|(name, tensor)| (name, tensor.grad()))
            .collect()
    };
    let (all, few) = (gradients(false), gradients(true));
    assert!(few.len() < all.len() && few.contains_key("model.state_proj.weight"));
    for (name, gradient) in &few {
        let scale = all[name].abs().max().double_value(&[]);
        let error = distance(gradient, &all[name]);
        assert!(error <= 1e-5 * scale, "{name}: {error}, largest {scale}");
    }
}
