//! Samples of a batch do not influence each other, and neither do absent cameras, padding or records.

use crate::fixtures::{
    FLOAT, FixedNoise, GivenNoise, NUM_SAMPLES, distance, expert, expert_section, expert_with, observation, targets,
};
use hlrp_nn::{Pass, Trace};
use hlrp_schema::policy::{ExpertSpec, Mode, ObjectiveSpec};
use hlrp_vla::{Architecture, ExpertModel};
use tch::{Device, Tensor};

const OBJECTIVE: ObjectiveSpec =
    ObjectiveSpec { mode: Mode::Multitask, latent_loss_weight: 1.0, action_loss_weight: 1.0 };

/// Half as many expert layers as text layers.
fn half() -> ExpertSpec {
    ExpertSpec { num_expert_layers: Some(2), self_attn_every_n_layers: 4, ..expert_section() }
}

#[test]
fn every_sample_of_a_batch_is_computed_on_its_own() {
    tch::manual_seed(3);
    let model = ExpertModel::new(&expert(), Device::Cpu).unwrap();
    let observation = observation();
    let given = Tensor::randn([NUM_SAMPLES, 5, 7], FLOAT);
    let sample = |observation: &_| {
        let noise = &mut GivenNoise([given.shallow_clone()].into());
        model.sample(observation, Mode::Actions, None, noise, &Pass::plain(false)).unwrap().actions_BTA.unwrap()
    };
    let before = sample(&observation);
    let _ = observation.state_BN.as_ref().unwrap().narrow(0, 1, 1).fill_(3.0);
    let after = sample(&observation);
    assert_eq!(distance(&before.select(0, 0), &after.select(0, 0)), 0.0);
    assert!(distance(&before.select(0, 1), &after.select(0, 1)) > 1e-4);
}

#[test]
fn nobody_sees_an_absent_camera_or_a_padding_token() {
    tch::manual_seed(4);
    let model = ExpertModel::new(&expert(), Device::Cpu).unwrap();
    let given = Tensor::randn([NUM_SAMPLES, 5, 7], FLOAT);
    let observation = observation();
    let sample = || {
        let noise = &mut GivenNoise([given.shallow_clone()].into());
        model.sample(&observation, Mode::Actions, None, noise, &Pass::plain(false)).unwrap().actions_BTA.unwrap()
    };
    let before = sample();
    let wrist = observation.cameras[1].as_ref().unwrap();
    let _ = wrist.pixels_BCHW.narrow(0, 1, 1).fill_(0.3);
    let _ = observation.language.ids_BL.narrow(0, 1, 1).narrow(1, 3, 3).fill_(7);
    assert_eq!(distance(&before, &sample()), 0.0);
    let _ = wrist.pixels_BCHW.narrow(0, 0, 1).fill_(0.3);
    assert!(distance(&before, &sample()) > 1e-6);
}

#[test]
fn watching_a_pass_changes_nothing() {
    tch::manual_seed(5);
    let model = ExpertModel::new(&expert_with(half()), Device::Cpu).unwrap();
    let (observation, targets) = (observation(), targets());
    let loss =
        |pass: &Pass<'_>| model.loss(&observation, &targets, &OBJECTIVE, &mut FixedNoise::new(0), pass).unwrap().total;
    let trace = Trace::default();
    assert_eq!(distance(&loss(&Pass::plain(true)), &loss(&Pass { train: true, trace: Some(&trace) })), 0.0);
    assert!(trace.into_records().iter().any(|(name, _)| name == "cache.layer3.keys"));
}
