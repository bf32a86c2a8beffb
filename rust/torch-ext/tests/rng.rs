//! A saved random state continues the same stream, to the last bit.
#![allow(clippy::unwrap_used)]

use hlrp_torch::rng;
use tch::{Device, Kind, Tensor};

fn draw() -> Vec<f32> {
    // An odd number of normal draws leaves one half of a pair cached in the generator.
    let normal = Tensor::randn([17], (Kind::Float, Device::Cpu));
    let uniform = Tensor::rand([3], (Kind::Float, Device::Cpu));
    Vec::try_from(Tensor::cat(&[normal, uniform], 0)).unwrap()
}

#[test]
fn a_restored_state_repeats_the_draws() {
    rng::seed(Device::Cpu, 5).unwrap();
    draw();
    let state = rng::state(Device::Cpu).unwrap();
    let first = draw();
    assert_ne!(draw(), first);
    rng::set_state(Device::Cpu, &state).unwrap();
    assert_eq!(draw(), first);
}

#[test]
fn a_seed_gives_the_stream_of_torch_manual_seed() {
    tch::manual_seed(7);
    let expected = draw();
    rng::seed(Device::Cpu, 7).unwrap();
    assert_eq!(draw(), expected);
}

#[test]
fn bytes_that_are_not_a_state_are_refused() {
    assert!(rng::set_state(Device::Cpu, &[1, 2, 3]).is_err());
}
