//! The formulas of the flow, in numbers.

use crate::fixtures::{FLOAT, distance, flow};
use hlrp_config::{Check, Hint};
use hlrp_nn::Pass;
use hlrp_schema::policy::FlowSpec;
use hlrp_vla::flow::{embed_time, integrate};
use hlrp_vla::{FlowNoise, FlowPoint, TorchNoise, VlaError};
use std::f32::consts::FRAC_1_SQRT_2;
use tch::{Device, Tensor};

#[test]
fn time_embedding_has_sines_then_cosines_of_logarithmic_periods() {
    let at = |time: f32| embed_time(&flow(), &Tensor::from_slice(&[time]), 8);
    let expect = |time, values: [f32; 8]| {
        assert!(distance(&at(time), &Tensor::from_slice(&values).unsqueeze(0)) < 1e-6, "time {time}: {}", at(time));
    };
    expect(0.0, [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]);
    expect(0.25, [0.0, 1.0, -FRAC_1_SQRT_2, 0.382_683_43, -1.0, 0.0, -FRAC_1_SQRT_2, 0.923_879_5]);
    expect(0.5, [0.0, 0.0, 1.0, FRAC_1_SQRT_2, 1.0, -1.0, 0.0, FRAC_1_SQRT_2]);
}

#[test]
fn a_point_lies_on_the_line_and_heads_for_the_noise() {
    let (target, noise) =
        (Tensor::from_slice(&[1.0_f32, 2.0]).view([1, 2]), Tensor::from_slice(&[0.5_f32, -1.0]).view([1, 2]));
    let point = FlowPoint::new(&target, &noise, &Tensor::from_slice(&[0.25_f32]));
    assert!(distance(&point.x, &Tensor::from_slice(&[0.875_f32, 1.25]).view([1, 2])) < 1e-7);
    assert!(distance(&point.velocity, &Tensor::from_slice(&[-0.5_f32, -3.0]).view([1, 2])) < 1e-7);
}

#[test]
fn euler_steps_walk_from_time_one_to_zero() {
    let mut times = Vec::new();
    let end = integrate(&flow(), &Tensor::ones([1, 1], FLOAT), None, &Pass::plain(false), |x, time_B, _| {
        times.push(time_B.double_value(&[0]));
        Ok::<_, VlaError>(x.shallow_clone())
    });
    assert_eq!(times, [1.0, 0.75, 0.5, 0.25]);
    assert!((end.unwrap().double_value(&[0, 0]) - 0.75_f64.powi(4)).abs() < 1e-7);
}

#[test]
fn training_times_follow_the_beta_distribution() {
    tch::manual_seed(1);
    let time_B = TorchNoise.time(20_000, &flow(), Device::Cpu);
    let (least, most) = (time_B.min().double_value(&[]), time_B.max().double_value(&[]));
    assert!(least >= 0.001 && most <= 1.0, "{least} {most}");
    // 0.001 + 0.999·1.5/2.5
    assert!((time_B.mean(tch::Kind::Double).double_value(&[]) - 0.6004).abs() < 0.01);
}

#[test]
fn invalid_constants_of_a_flow_are_refused() {
    let refuse = |flow: FlowSpec, key: &str| {
        let error = flow.check().unwrap_err();
        assert!(error.key() == Some(key) && Hint::hint(&error).is_some(), "{error}");
    };
    refuse(FlowSpec { num_steps: 0, ..flow() }, "num_steps");
    refuse(FlowSpec { min_period: 5.0, ..flow() }, "max_period");
    refuse(FlowSpec { time_beta_alpha: 0.0, ..flow() }, "time_beta_alpha");
}
