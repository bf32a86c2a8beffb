//! Operations on lists of tensors equal the same operations one by one.
#![allow(clippy::unwrap_used)]

use hlrp_torch::{clear_grads, lerp, mul_by_scalar, norm};
use tch::{Device, Kind, Tensor};

fn random(shapes: &[&[i64]]) -> Vec<Tensor> {
    tch::manual_seed(2);
    shapes.iter().map(|shape| Tensor::randn(*shape, (Kind::Float, Device::Cpu))).collect()
}

#[test]
fn the_norm_of_a_list_is_that_of_all_its_entries() {
    let tensors = random(&[&[300], &[4, 5], &[]]);
    let all = Tensor::cat(&tensors.iter().map(|t| t.reshape([-1])).collect::<Vec<_>>(), 0).to_kind(Kind::Double);
    let exact = all.square().sum(Kind::Double).sqrt().double_value(&[]);
    let ours = norm(&tensors).unwrap();
    assert_eq!(ours.dim(), 0);
    assert!((ours.double_value(&[]) / exact - 1.0).abs() < 1e-6);
}

#[test]
fn a_list_is_scaled_in_place() {
    let tensors = random(&[&[3], &[2, 2]]);
    let expected: Vec<Tensor> = tensors.iter().map(|t| t * 0.25).collect();
    mul_by_scalar(&tensors, &Tensor::from(0.25f32)).unwrap();
    assert_eq!(tensors, expected);
}

#[test]
fn a_list_moves_towards_another_and_a_weight_of_one_copies() {
    let (tensors, ends) = (random(&[&[5]]), [Tensor::ones([5], (Kind::Float, Device::Cpu))]);
    let expected = &tensors[0] + (&ends[0] - &tensors[0]) * 0.1;
    lerp(&tensors, &ends, 0.1).unwrap();
    assert!((&tensors[0] - expected).abs().max().double_value(&[]) < 1e-7);
    lerp(&tensors, &ends, 1.0).unwrap();
    assert_eq!(tensors[0], ends[0]);
    assert!(lerp(&tensors, &[], 0.5).is_err());
}

#[test]
fn a_cleared_gradient_is_undefined_and_the_next_one_is_not_added_to_it() {
    let x = Tensor::from_slice(&[2.0f32]).set_requires_grad(true);
    (&x * &x).backward();
    assert_eq!(x.grad().double_value(&[0]), 4.0);
    clear_grads(&[x.shallow_clone()]).unwrap();
    assert!(!x.grad().defined());
    (&x * 3.0).backward();
    assert_eq!(x.grad().double_value(&[0]), 3.0);
}
