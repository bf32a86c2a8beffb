//! Autocast chooses the number format of matrix products and leaves nothing behind.
#![allow(clippy::unwrap_used)]

use hlrp_torch::{Autocast, AutocastDtype};
use tch::{Device, Kind, Tensor};

fn product_kind() -> Kind {
    let x = Tensor::ones([4, 4], (Kind::Float, Device::Cpu));
    x.matmul(&x).kind()
}

#[test]
fn products_are_bf16_inside_float32_in_a_disabled_part_and_float32_afterwards() {
    assert_eq!(product_kind(), Kind::Float);
    {
        let _mixed = Autocast::enter(Device::Cpu, AutocastDtype::Bf16).unwrap();
        assert_eq!(product_kind(), Kind::BFloat16);
        {
            let _exact = Autocast::disable(Device::Cpu).unwrap();
            assert_eq!(product_kind(), Kind::Float);
        }
        assert_eq!(product_kind(), Kind::BFloat16);
    }
    assert_eq!(product_kind(), Kind::Float);
}

#[test]
fn gradients_reach_the_float32_weights() {
    let weight = Tensor::ones([4, 4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let loss = {
        let _mixed = Autocast::enter(Device::Cpu, AutocastDtype::Bf16).unwrap();
        Tensor::ones([2, 4], (Kind::Float, Device::Cpu)).matmul(&weight).sum(Kind::Float)
    };
    loss.backward();
    assert_eq!(weight.grad().kind(), Kind::Float);
    assert_eq!(weight.grad().double_value(&[0, 0]), 2.0);
}

#[test]
fn a_changed_weight_is_seen_by_the_next_pass() {
    let mut weight = Tensor::ones([2, 2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let input = Tensor::ones([1, 2], (Kind::Float, Device::Cpu));
    let forward = |weight: &Tensor| {
        let _mixed = Autocast::enter(Device::Cpu, AutocastDtype::Bf16).unwrap();
        input.matmul(weight).sum(Kind::Float).double_value(&[])
    };
    assert_eq!(forward(&weight), 4.0);
    tch::no_grad(|| {
        let _ = weight.fill_(2.0);
    });
    assert_eq!(forward(&weight), 8.0, "the cast weight of the first pass must not be reused");
}
