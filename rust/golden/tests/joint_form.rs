//! The prefix runs once; the velocities of suffixes that read it equal those of the joint forward pass.
#![allow(clippy::unwrap_used, non_snake_case)] // a test may panic; shape suffixes

#[allow(dead_code)] // the other fixtures are for the tests of hlrp-vla
#[path = "../../vla/tests/vla/fixtures.rs"]
mod fixtures;

use fixtures::{FLOAT, GivenNoise, NUM_SAMPLES, distance, expert, expert_section, expert_with, observation};
use hlrp_golden::joint::joint_velocity;
use hlrp_nn::{Pass, Trace};
use hlrp_schema::policy::{ExpertSpec, Mode, ModelSpec};
use hlrp_vla::{Architecture, ExpertModel, HeadKind};
use tch::{Device, Tensor, no_grad};

/// Every way in which layers can be arranged.
fn arrangements() -> Vec<ModelSpec> {
    let without_special_tokens = ExpertSpec {
        add_image_special_tokens: false,
        image_special_tokens: None,
        prefix_length: None,
        ..expert_section()
    };
    let half_as_many_layers = ExpertSpec {
        num_expert_layers: Some(2),
        self_attn_every_n_layers: 4,
        expert_width_multiplier: 0.5,
        ..expert_section()
    };
    vec![
        expert(),
        expert_with(without_special_tokens),
        expert_with(ExpertSpec { self_attn_every_n_layers: 1, ..expert_section() }),
        expert_with(half_as_many_layers),
    ]
}

/// The velocity at noise and time 1, once as a sampler's first step and once in the joint form.
fn first_velocities(model: &ExpertModel, kind: HeadKind, mode: Mode, noise: &Tensor) -> [Tensor; 2] {
    let observation = observation();
    let trace = Trace::default();
    let recorded = Pass { train: false, trace: Some(&trace) };
    model.sample(&observation, mode, None, &mut GivenNoise([noise.shallow_clone()].into()), &recorded).unwrap();
    let sampled = trace.into_records().into_iter().find(|(name, _)| name == "step.velocity").unwrap().1;
    let time_B = Tensor::ones([NUM_SAMPLES], FLOAT);
    let joint = no_grad(|| joint_velocity(model, &observation, kind, noise, &time_B, &Pass::plain(false)).unwrap());
    [sampled, joint]
}

#[test]
fn prefill_and_denoise_equals_the_joint_forward() {
    for config in arrangements() {
        tch::manual_seed(2);
        let model = ExpertModel::new(&config, Device::Cpu).unwrap();
        for (kind, mode, shape) in
            [(HeadKind::Action, Mode::Actions, [2, 5, 7]), (HeadKind::Latent, Mode::Latent, [2, 4, 2])]
        {
            let [sampled, joint] = first_velocities(&model, kind, mode, &Tensor::randn(shape, FLOAT));
            let scale = joint.abs().max().double_value(&[]);
            assert!(distance(&sampled, &joint) < 1e-5 * scale, "{config:?} {kind:?}: {}", distance(&sampled, &joint));
        }
    }
}
