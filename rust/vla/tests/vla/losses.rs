//! What counts in a loss.

use crate::fixtures::{FixedNoise, distance, expert, observation, pooled, targets};
use hlrp_config::with_hint;
use hlrp_nn::Pass;
use hlrp_schema::policy::{Mode, ModelSpec, ObjectiveSpec};
use hlrp_vla::{FlowNoise, Observation, Targets, VlaLoss, VlaModel};
use tch::{Device, Tensor};

fn model(config: &ModelSpec) -> VlaModel {
    tch::manual_seed(6);
    VlaModel::new(config, Device::Cpu).unwrap()
}

fn loss(model: &VlaModel, observation: &Observation, targets: &Targets, mode: Mode) -> VlaLoss {
    let objective = ObjectiveSpec { mode, latent_loss_weight: 0.1, action_loss_weight: 2.0 };
    model.loss(observation, targets, &objective, &mut FixedNoise::new(0), &Pass::plain(true)).unwrap()
}

fn value(tensor: &Tensor) -> f64 {
    tensor.double_value(&[])
}

/// The observation and targets of each architecture.
fn cases() -> [(ModelSpec, Observation, Targets); 2] {
    let mut one_camera = observation();
    one_camera.cameras.truncate(1);
    let mut one_step = targets();
    if let Some(action) = &mut one_step.action {
        action.chunk_BTA = action.chunk_BTA.narrow(1, 0, 1);
        action.is_pad_BT = action.is_pad_BT.narrow(1, 0, 1);
    }
    [(expert(), observation(), targets()), (pooled(), one_camera, one_step)]
}

#[test]
fn multitask_is_the_weighted_sum_of_both_losses() {
    for (config, observation, targets) in cases() {
        let model = model(&config);
        let loss = |mode| loss(&model, &observation, &targets, mode);
        let (latent, actions, both) = (loss(Mode::Latent), loss(Mode::Actions), loss(Mode::Multitask));
        let (latent, action) = (value(&latent.latent.unwrap().mean), value(&actions.action.unwrap().mean));
        assert!(latent > 0.0 && action > 0.0);
        let expected = 0.1 * latent + 2.0 * action;
        assert!((value(&both.total) - expected).abs() < 1e-6 * expected, "{} {expected}", value(&both.total));
    }
}

#[test]
fn padded_steps_do_not_count() {
    let (config, observation, mut targets) = cases().into_iter().next().unwrap();
    let model = model(&config);
    let action = targets.action.as_mut().unwrap();
    action.is_pad_BT =
        Tensor::from_slice(&[false, false, false, true, true, true, true, true, true, true]).view([2, 5]);
    let loss_of = |targets: &Targets| loss(&model, &observation, targets, Mode::Actions).action.unwrap();
    let before = loss_of(&targets);
    // Only the first sample has real steps, so the mean is its own.
    assert_eq!(value(&before.mean), before.per_sample_B.double_value(&[0]));
    assert_eq!(before.per_sample_B.double_value(&[1]), 0.0);
    assert_eq!(value(&before.num_supervised), 1.0);
    let all = loss_of(&Targets {
        action: targets
            .action
            .take()
            .map(|action| hlrp_vla::ActionTarget { is_pad_BT: action.is_pad_BT.zeros_like(), ..action }),
        latent: None,
    });
    assert!((value(&all.mean) - value(&before.mean)).abs() > 1e-3);
}

#[test]
fn nothing_supervised_gives_zero_and_a_zero_gradient() {
    for (config, observation, mut targets) in cases() {
        let model = model(&config);
        let action = targets.action.as_mut().unwrap();
        action.is_pad_BT = action.is_pad_BT.ones_like();
        let latent = targets.latent.as_mut().unwrap();
        latent.is_valid_B = latent.is_valid_B.zeros_like();
        let loss = loss(&model, &observation, &targets, Mode::Multitask);
        assert_eq!(value(&loss.total), 0.0);
        loss.total.backward();
        for (name, parameter) in model.store().parameters() {
            let gradient = parameter.grad();
            assert!(!gradient.defined() || value(&gradient.abs().max()) == 0.0, "{name}");
        }
    }
}

#[test]
fn metrics_have_the_same_names_in_every_mode() {
    let (config, observation, targets) = cases().into_iter().next().unwrap();
    let model = model(&config);
    let metrics = |mode| loss(&model, &observation, &targets, mode).metrics();
    let names = |mode| metrics(mode).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(Mode::Latent), ["latent_loss", "action_loss", "num_latent_samples", "num_action_samples"]);
    assert_eq!(names(Mode::Latent), names(Mode::Multitask));
    let values: Vec<f64> = metrics(Mode::Latent).iter().map(|(_, tensor)| value(tensor)).collect();
    assert!(values[0] > 0.0 && values[1..] == [0.0, 2.0, 0.0]);
}

#[test]
fn a_missing_or_misshapen_target_is_named() {
    for (config, observation, mut targets) in cases() {
        let model = model(&config);
        let objective = ObjectiveSpec { mode: Mode::Multitask, latent_loss_weight: 1.0, action_loss_weight: 1.0 };
        let error = |targets: &Targets| {
            let refused = model.loss(&observation, targets, &objective, &mut FixedNoise::new(0), &Pass::plain(true));
            with_hint(&refused.err().unwrap())
        };
        let text = error(&Targets { latent: None, action: None });
        assert!(text.contains("latent actions: the batch has none") && text.contains("hint:"), "{text}");
        let latent = targets.latent.as_mut().unwrap();
        latent.vectors_BSD = latent.vectors_BSD.as_ref().map(|x| x.narrow(1, 0, 3));
        let text = error(&targets);
        assert!(text.contains("[2, 3, 2]") && text.contains("[B, 4, 2]"), "{text}");
    }
}

#[test]
fn padded_dimensions_of_an_action_do_not_count() {
    // The noise of the padded dimensions changes, and with it what the model predicts, but not through the loss's own terms:
    // with a zero output projection the error of a real dimension is its target velocity alone.
    let (config, observation, targets) = cases().into_iter().next().unwrap();
    let model = model(&config);
    for (name, mut parameter) in model.store().parameters() {
        if name.starts_with("model.action_out_proj") {
            tch::no_grad(|| drop(parameter.zero_()));
        }
    }
    let loss = loss(&model, &observation, &targets, Mode::Actions).action.unwrap();
    let action = targets.action.unwrap();
    let noise = FixedNoise::new(0).normal(&[2, 5, 7], Device::Cpu);
    let expected = (noise.narrow(2, 0, 3) - action.chunk_BTA).square().mean(tch::Kind::Float);
    assert!(distance(&loss.mean, &expected) < 1e-6);
}

#[test]
fn what_is_masked_need_not_be_a_number() {
    for (config, observation, mut targets) in cases() {
        let model = model(&config);
        let value_of = |targets: &Targets| {
            let loss = loss(&model, &observation, targets, Mode::Multitask);
            loss.total.backward();
            value(&loss.total)
        };
        let action = targets.action.as_mut().unwrap();
        action.is_pad_BT = Tensor::zeros_like(&action.is_pad_BT);
        let _ = action.is_pad_BT.select(0, 1).fill_(1);
        let latent = targets.latent.as_mut().unwrap();
        latent.is_valid_B = Tensor::from_slice(&[true, false]);
        let _ = latent.vectors_BSD.as_ref().unwrap().select(0, 1).fill_(0.0);
        let _ = action.chunk_BTA.select(0, 1).fill_(0.0);
        let expected = value_of(&targets);
        let _ = targets.action.as_mut().unwrap().chunk_BTA.select(0, 1).fill_(f64::NAN);
        let _ = targets.latent.as_mut().unwrap().vectors_BSD.as_ref().unwrap().select(0, 1).fill_(f64::INFINITY);
        assert_eq!(value_of(&targets), expected);
        for (name, parameter) in model.store().parameters() {
            let gradient = parameter.grad();
            assert!(!gradient.defined() || value(&gradient.isfinite().all()) == 1.0, "{name}");
        }
    }
}
