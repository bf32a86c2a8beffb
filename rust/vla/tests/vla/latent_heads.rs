//! The heads of latent actions: what each one learns, and who sees whom.

use crate::fixtures::{FixedNoise, GivenNoise, distance, expert_section, expert_with, observation, targets};
use hlrp_config::Problem;
use hlrp_nn::Pass;
use hlrp_schema::policy::{ExpertSpec, LatentHead, LatentShape, Mode, ModelSpec, ObjectiveSpec};
use hlrp_vla::{Architecture, ExpertModel, Targets, VlaLoss, VlaModel, freeze};
use tch::{Device, Kind, Tensor, no_grad};

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);
const HEADS: [LatentHead; 4] =
    [LatentHead::VectorFlow, LatentHead::VectorMse, LatentHead::CodeCrossEntropy, LatentHead::JointFlow];

fn spec(latent_head: LatentHead, latent_dropout: f64) -> ModelSpec {
    expert_with(ExpertSpec { latent_head, latent_dropout, ..expert_section() })
}

fn model(latent_head: LatentHead) -> ExpertModel {
    model_of(&spec(latent_head, 0.0))
}

fn model_of(spec: &ModelSpec) -> ExpertModel {
    tch::manual_seed(5);
    ExpertModel::new(spec, Device::Cpu).unwrap()
}

/// Losses of one observation, always the same.
fn loss(model: &ExpertModel, targets: &Targets, mode: Mode) -> VlaLoss {
    tch::manual_seed(1);
    let objective = ObjectiveSpec { mode, latent_loss_weight: 1.0, action_loss_weight: 1.0 };
    model.loss(&observation(), targets, &objective, &mut FixedNoise::new(0), &Pass::plain(true)).unwrap()
}

/// Predictions for the same observation.
fn sample<const N: usize>(model: &ExpertModel, mode: Mode, noise: [&Tensor; N]) -> hlrp_vla::Prediction {
    tch::manual_seed(1);
    let mut noise = GivenNoise(noise.into_iter().map(Tensor::shallow_clone).collect());
    model.sample(&observation(), mode, None, &mut noise, &Pass::plain(false)).unwrap()
}

fn value(tensor: &Tensor) -> f64 {
    tensor.double_value(&[])
}

#[test]
fn every_parameter_that_a_mode_uses_gets_a_gradient_and_no_other() {
    for head in HEADS {
        for mode in [Mode::Latent, Mode::Actions, Mode::Multitask] {
            let model = model(head);
            freeze(model.store(), &model.unused_in(mode)).unwrap();
            loss(&model, &targets(), mode).total.backward();
            for (name, parameter) in model.store().parameters() {
                assert!(parameter.grad().defined(), "{head:?}, {mode:?}: {name} gets no gradient");
            }
            for (name, parameter) in model.store().buffers() {
                assert!(!parameter.grad().defined(), "{head:?}, {mode:?}: {name} gets a gradient");
            }
        }
    }
}

#[test]
fn cross_entropy_is_that_of_the_teachers_codes() {
    let model = model(LatentHead::CodeCrossEntropy);
    let parameters = model.store().parameters();
    let of = |name: &str| parameters.iter().find(|(own, _)| own == name).unwrap().1.shallow_clone();
    let (weight, bias_K) = (of("model.latent_out_proj.weight"), of("model.latent_out_proj.bias"));
    no_grad(|| {
        let _ = weight.shallow_clone().zero_();
        let _ = bias_K.shallow_clone().zero_();
    });
    let mut targets = targets();
    let latent = |targets: &Targets| value(&loss(&model, targets, Mode::Latent).latent.unwrap().mean);
    assert!((latent(&targets) - 8.0_f64.ln()).abs() < 1e-6, "every code is equally likely");
    no_grad(|| bias_K.get(3).copy_(&Tensor::from(10.0_f32)));
    targets.latent.as_mut().unwrap().codes_BS = Some(Tensor::full([2, 4], 3, (Kind::Int64, Device::Cpu)));
    assert!(latent(&targets) < 1e-3, "code 3 is certain and true");
    let predicted = sample(&model, Mode::Latent, []);
    assert!(predicted.latents_BSD.is_none());
    assert_eq!(Vec::<i64>::try_from(predicted.codes_BS.unwrap().flatten(0, 1)).unwrap(), [3; 8]);
}

#[test]
fn regression_needs_no_noise_and_its_own_prediction_has_no_error() {
    let model = model(LatentHead::VectorMse);
    assert!(model.noise_shapes(Mode::Latent, 2).is_empty());
    let mut targets = targets();
    targets.latent.as_mut().unwrap().vectors_BSD = sample(&model, Mode::Latent, []).latents_BSD;
    let latent = loss(&model, &targets, Mode::Latent).latent.unwrap();
    assert!(value(&latent.mean) < 1e-10, "{}", value(&latent.mean));
}

#[test]
fn in_a_joint_flow_actions_see_latents_and_latents_do_not_see_actions() {
    let model = model(LatentHead::JointFlow);
    let (latent, action) = (Tensor::ones([2, 4, 2], FLOAT) * 0.3, Tensor::ones([2, 5, 7], FLOAT) * 0.5);
    let first = sample(&model, Mode::Multitask, [&latent, &action]);
    let latents = first.latents_BSD.unwrap();
    let other_actions = sample(&model, Mode::Multitask, [&latent, &(&action * -1.0)]).latents_BSD.unwrap();
    assert!(distance(&latents, &other_actions) < 1e-6, "latents do not depend on the actions");
    let alone = sample(&model, Mode::Latent, [&latent]).latents_BSD.unwrap();
    assert!(distance(&latents, &alone) < 1e-5, "and are the same without them");
    let other_latents = sample(&model, Mode::Multitask, [&(&latent * -2.0), &action]).actions_BTA.unwrap();
    assert!(distance(&first.actions_BTA.unwrap(), &other_latents) > 1e-4, "actions depend on the latents");
}

#[test]
fn actions_without_known_latents_are_trained_as_they_are_predicted_alone() {
    let model = model(LatentHead::JointFlow);
    let mut unknown = targets();
    let latent = unknown.latent.as_mut().unwrap();
    latent.is_valid_B = Tensor::zeros([2], (Kind::Bool, Device::Cpu));
    latent.vectors_BSD = Some(Tensor::full([2, 4, 2], f64::NAN, FLOAT));
    let joint = loss(&model, &unknown, Mode::Multitask);
    assert_eq!(value(&joint.latent.unwrap().mean), 0.0);
    let actions = Targets { action: unknown.action, latent: None };
    let alone = loss(&model, &actions, Mode::Actions);
    let [joint, alone] = [joint.action, alone.action].map(|loss| value(&loss.unwrap().mean));
    assert!((joint - alone).abs() < 1e-5 * alone, "{joint} {alone}");
}

#[test]
fn a_dropout_of_1_hides_the_latents_from_every_action() {
    let targets = targets();
    let action = |latent_dropout, mode| {
        let model = model_of(&spec(LatentHead::JointFlow, latent_dropout));
        value(&loss(&model, &targets, mode).action.unwrap().mean)
    };
    let alone = action(0.0, Mode::Actions);
    assert!((action(1.0, Mode::Multitask) - alone).abs() < 1e-5 * alone);
    assert!((action(0.0, Mode::Multitask) - alone).abs() > 1e-4 * alone);
}

#[test]
fn codes_need_a_teacher_with_codes() {
    let mut spec = spec(LatentHead::CodeCrossEntropy, 0.0);
    spec.latent = Some(LatentShape { code_seq_len: 4, code_dim: 2, codebook_size: None });
    let problem: Problem = spec.check_resolved().unwrap_err();
    assert!(problem.to_string().contains("arch.expert.latent_head"), "{problem}");
    assert!(VlaModel::new(&spec, Device::Cpu).is_err());
}
