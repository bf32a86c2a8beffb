//! What counts in a loss.

use crate::fixtures::{FixedNoise, NUM_SAMPLES, distance, expert, expert_section, observation, pooled, targets};
use hlrp_config::with_hint;
use hlrp_nn::Pass;
use hlrp_schema::policy::{ArchSpec, ExpertSpec, FlowSpec, LatentHead, Mode, ModelSpec, ObjectiveSpec};
use hlrp_vla::{ActionTarget, CameraImages, FlowNoise, Language, Observation, Targets, VlaLoss, VlaModel};
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
        action: targets.action.take().map(|action| ActionTarget { is_pad_BT: action.is_pad_BT.zeros_like(), ..action }),
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

/// The fixed noise of samples from one on: what a part of a batch sees in the whole batch.
struct NoiseFrom(i64);

impl NoiseFrom {
    fn rows(&self, draw: impl Fn(&mut FixedNoise) -> Tensor, num_samples: i64) -> Tensor {
        draw(&mut FixedNoise::new(0)).narrow(0, self.0, num_samples)
    }
}

impl FlowNoise for NoiseFrom {
    fn normal(&mut self, shape: &[i64], device: Device) -> Tensor {
        let whole = [&[NUM_SAMPLES], &shape[1..]].concat();
        self.rows(|noise| noise.normal(&whole, device), shape[0])
    }

    fn time(&mut self, num_samples: i64, flow: &FlowSpec, device: Device) -> Tensor {
        self.rows(|noise| noise.time(NUM_SAMPLES, flow, device), num_samples)
    }
}

#[test]
fn a_batch_of_two_robots_has_the_loss_of_each_weighted_by_their_values() {
    let spec = expert();
    let (mut targets, observation) = (targets(), observation());
    let action = targets.action.as_mut().unwrap();
    let _ = action.is_pad_BT.narrow(1, 3, 2).select(0, 0).fill_(1);
    action.is_pad_dim_BA = Some(Tensor::from_slice(&[false, false, false, false, false, true]).view([2, 3]));
    let _ = action.chunk_BTA.select(0, 1).select(1, 2).fill_(0.0);
    let mixed = loss(&model(&spec), &observation, &targets, Mode::Actions).action.unwrap();
    // Each robot alone: a policy with the same weights whose actions have that robot's dimensions, and no mask of dimensions.
    let alone = |sample: i64, dim: i64| {
        let model = model(&ModelSpec { action_dim: Some(dim), ..spec.clone() });
        let row = |x: &Tensor| x.narrow(0, sample, 1);
        let of_camera = |images: &CameraImages| CameraImages {
            pixels_BCHW: row(&images.pixels_BCHW),
            is_real_B: row(&images.is_real_B),
        };
        let observation = Observation {
            cameras: observation.cameras.iter().map(|images| images.as_ref().map(of_camera)).collect(),
            language: Language {
                ids_BL: row(&observation.language.ids_BL),
                is_valid_BL: row(&observation.language.is_valid_BL),
            },
            state_BN: observation.state_BN.as_ref().map(row),
        };
        let action = targets.action.as_ref().unwrap();
        let target = ActionTarget {
            chunk_BTA: row(&action.chunk_BTA).narrow(2, 0, dim),
            is_pad_BT: row(&action.is_pad_BT),
            is_pad_dim_BA: None,
        };
        let targets = Targets { action: Some(target), latent: None };
        let objective = ObjectiveSpec { mode: Mode::Actions, latent_loss_weight: 0.0, action_loss_weight: 1.0 };
        let loss = model.loss(&observation, &targets, &objective, &mut NoiseFrom(sample), &Pass::plain(true)).unwrap();
        loss.action.unwrap()
    };
    let (first, second) = (alone(0, 3), alone(1, 2));
    let counts = [&first, &second].map(|loss| value(&loss.num_values));
    assert_eq!(counts, [9.0, 10.0]);
    assert_eq!(value(&mixed.num_values), 19.0);
    let expected = (9.0 * value(&first.mean) + 10.0 * value(&second.mean)) / 19.0;
    assert!((value(&mixed.mean) - expected).abs() < 1e-6 * expected, "{} {expected}", value(&mixed.mean));
    let per_sample = [0, 1].map(|at| mixed.per_sample_B.double_value(&[at]));
    for (found, alone) in per_sample.into_iter().zip([&first, &second]) {
        assert!((found - value(&alone.mean)).abs() < 1e-6 * found, "{found} {:?}", alone.mean);
    }
}

#[test]
fn what_a_robot_lacks_changes_neither_loss_nor_gradient() {
    let joint = ArchSpec::Expert(ExpertSpec { latent_head: LatentHead::JointFlow, ..expert_section() });
    let (_, observation, targets) = cases().into_iter().next().unwrap();
    let with_joint = (ModelSpec { arch: joint, ..expert() }, observation, targets);
    for (spec, observation, mut targets) in cases().into_iter().chain([with_joint]) {
        let mut found = |filling: f64| {
            let model = model(&spec);
            let action = targets.action.as_mut().unwrap();
            action.is_pad_dim_BA = Some(Tensor::from_slice(&[false, false, true, false, false, false]).view([2, 3]));
            let _ = action.chunk_BTA.select(0, 0).select(1, 2).fill_(filling);
            let loss = loss(&model, &observation, &targets, Mode::Multitask);
            loss.total.backward();
            let gradients = model.store().parameters().into_iter().map(|(name, parameter)| (name, parameter.grad()));
            (value(&loss.total), gradients.filter(|(_, gradient)| gradient.defined()).collect::<Vec<_>>())
        };
        let (expected, gradients) = found(0.0);
        for filling in [1e6, f64::NAN] {
            let (loss, others) = found(filling);
            assert_eq!(loss, expected);
            for ((name, gradient), (_, other)) in gradients.iter().zip(&others) {
                assert!(gradient.equal(other), "{name}");
            }
        }
    }
}
