//! The position convolution sees the past and the present, not the future, and its neighbours on the grid.
#![allow(clippy::unwrap_used, non_snake_case)] // a test may panic

use hlrp_nn::{Store, spacetime::Peg};
use tch::{Device, Kind, Tensor, no_grad};

fn tokens(shape: [i64; 5]) -> Tensor {
    Tensor::randn(shape, (Kind::Float, Device::Cpu))
}

#[test]
fn it_equals_a_causally_padded_3d_convolution() {
    let store = Store::new(Device::Cpu);
    let peg = Peg::new(&store.root(), 6);
    let parameters = store.parameters();
    let (weight, bias) = (&parameters[0].1, &parameters[1].1);
    for num_frames in 1..=4 {
        let x_BTHWD = tokens([2, num_frames, 5, 4, 6]);
        let padded = x_BTHWD.permute([0, 4, 1, 2, 3]).constant_pad_nd([1, 1, 1, 1, 2, 0]);
        let expected = padded.conv3d(weight, Some(bias), [1, 1, 1], [0, 0, 0], [1, 1, 1], 6).permute([0, 2, 3, 4, 1]);
        let ours = no_grad(|| peg.forward(&x_BTHWD));
        assert!(ours.allclose(&expected, 1e-5, 1e-6, false), "{num_frames} frames");
    }
}

#[test]
fn a_later_frame_does_not_reach_an_earlier_one() {
    let store = Store::new(Device::Cpu);
    let peg = Peg::new(&store.root(), 6);
    let x_BTHWD = tokens([1, 3, 4, 4, 6]);
    let changed = x_BTHWD.copy();
    let _ = changed.select(1, 2).fill_(9.0);
    let (ours, theirs) = no_grad(|| (peg.forward(&x_BTHWD), peg.forward(&changed)));
    assert!(ours.narrow(1, 0, 2).equal(&theirs.narrow(1, 0, 2)));
    assert!(!ours.select(1, 2).equal(&theirs.select(1, 2)));
}
