//! The fused kernel computes AdamW as its paper defines it.
#![allow(clippy::unwrap_used)]

use hlrp_torch::{AdamWStep, fused_adamw};
use tch::{Device, Kind, Tensor};

const STEP: AdamWStep = AdamWStep { lr: 3e-3, beta1: 0.9, beta2: 0.95, weight_decay: 0.1, eps: 1e-8 };

/// One parameter in float64, updated by the textbook.
struct Reference {
    p: Vec<f64>,
    m: Vec<f64>,
    v: Vec<f64>,
}

impl Reference {
    fn step(&mut self, t: i32, gradient: &[f64], s: AdamWStep) {
        for (i, g) in gradient.iter().enumerate() {
            self.p[i] *= 1.0 - s.lr * s.weight_decay;
            self.m[i] = s.beta1 * self.m[i] + (1.0 - s.beta1) * g;
            self.v[i] = s.beta2 * self.v[i] + (1.0 - s.beta2) * g * g;
            let m_hat = self.m[i] / (1.0 - s.beta1.powi(t));
            let v_hat = self.v[i] / (1.0 - s.beta2.powi(t));
            self.p[i] -= s.lr * m_hat / (v_hat.sqrt() + s.eps);
        }
    }
}

fn doubles(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).flatten(0, -1)).unwrap()
}

#[test]
fn many_steps_equal_the_textbook_in_float64() {
    tch::manual_seed(1);
    let shapes: [&[i64]; 3] = [&[7, 5], &[11], &[3, 2, 2]];
    let params: Vec<Tensor> = shapes.iter().map(|shape| Tensor::randn(*shape, (Kind::Float, Device::Cpu))).collect();
    let zeros = || params.iter().map(Tensor::zeros_like).collect::<Vec<_>>();
    let (exp_avgs, exp_avg_sqs) = (zeros(), zeros());
    let steps: Vec<Tensor> = params.iter().map(|_| Tensor::zeros([], (Kind::Float, Device::Cpu))).collect();
    let mut references: Vec<Reference> =
        params.iter().map(|p| Reference { p: doubles(p), m: vec![0.0; p.numel()], v: vec![0.0; p.numel()] }).collect();
    for t in 1..=50 {
        let grads: Vec<Tensor> = params.iter().map(Tensor::randn_like).collect();
        fused_adamw(&params, &grads, &exp_avgs, &exp_avg_sqs, &steps, STEP).unwrap();
        for (reference, grad) in references.iter_mut().zip(&grads) {
            reference.step(t, &doubles(grad), STEP);
        }
    }
    for (param, reference) in params.iter().zip(&references) {
        for (ours, exact) in doubles(param).iter().zip(&reference.p) {
            assert!((ours - exact).abs() < 1e-5 * exact.abs().max(1.0), "{ours} instead of {exact}");
        }
    }
    assert!(steps.iter().all(|step| step.double_value(&[]) == 50.0));
}

#[test]
fn lists_of_different_lengths_are_refused() {
    let one = [Tensor::zeros([2], (Kind::Float, Device::Cpu))];
    let error = fused_adamw(&one, &[], &one, &one, &one, STEP).unwrap_err();
    assert!(error.to_string().contains("different lengths"), "{error}");
}

#[test]
fn an_exception_of_libtorch_becomes_an_error() {
    let float = || vec![Tensor::zeros([2], (Kind::Float, Device::Cpu))];
    let double = [Tensor::zeros([2], (Kind::Double, Device::Cpu))];
    let step = [Tensor::zeros([], (Kind::Float, Device::Cpu))];
    let error = fused_adamw(&float(), &double, &float(), &float(), &step, STEP).unwrap_err();
    assert!(error.to_string().starts_with("libtorch: fused_adamw: "), "{error}");
}
