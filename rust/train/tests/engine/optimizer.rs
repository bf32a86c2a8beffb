//! Decay groups, parameters without a gradient, rewritten rows, clipping.

use hlrp_schema::OptimizerConfig;
use hlrp_train::{Optimizer, RowReset, norm_and_clip};
use tch::{Device, Kind, Tensor};

fn config() -> OptimizerConfig {
    OptimizerConfig { lr: 0.1, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.5 }
}

fn param(name: &str, shape: &[i64]) -> (String, Tensor) {
    (name.to_owned(), Tensor::ones(shape, (Kind::Float, Device::Cpu)).set_requires_grad(true))
}

/// Gives every parameter of `params` the gradient 1.
fn backward(params: &[&Tensor]) {
    for param in params {
        param.sum(Kind::Float).backward();
    }
}

fn value(tensor: &Tensor, index: i64) -> f64 {
    tensor.flatten(0, -1).double_value(&[index])
}

#[test]
fn matrices_decay_and_vectors_do_not() {
    let params = [param("weight", &[2, 2]), param("bias", &[2]), param("kernel", &[1, 1, 2]), param("scale", &[])];
    let optimizer = Optimizer::new(&params, &config()).unwrap();
    let [decayed, rest] = optimizer.groups();
    assert_eq!((decayed.weight_decay, decayed.names), (0.5, vec!["weight".to_owned(), "kernel".to_owned()]));
    assert_eq!((rest.weight_decay, rest.names), (0.0, vec!["bias".to_owned(), "scale".to_owned()]));

    backward(&[&params[0].1, &params[1].1]);
    optimizer.step(0.1).unwrap();
    // The first step of AdamW moves by the rate against the gradient's sign; decay takes lr * 0.5 of the weight before.
    assert!((value(&params[0].1, 0) - (1.0 - 0.05 - 0.1)).abs() < 1e-6);
    assert!((value(&params[1].1, 0) - (1.0 - 0.1)).abs() < 1e-6);
}

#[test]
fn a_parameter_without_a_gradient_is_left_alone() {
    let params = [param("used", &[2, 2]), param("idle", &[2, 2])];
    let optimizer = Optimizer::new(&params, &config()).unwrap();
    backward(&[&params[0].1]);
    assert_eq!(optimizer.gradients().len(), 1);
    optimizer.step(0.1).unwrap();
    assert_eq!(value(&params[1].1, 0), 1.0, "no decay either");
    let steps: Vec<f64> =
        optimizer.state().iter().filter(|(name, _)| name.starts_with("step.")).map(|(_, t)| value(t, 0)).collect();
    assert_eq!(steps, [1.0, 0.0]);
    optimizer.clear_gradients().unwrap();
    assert!(optimizer.gradients().is_empty());
}

#[test]
fn rewritten_rows_lose_moments_and_gradient_and_the_others_keep_them() {
    let codes = param("codes", &[3, 2]);
    let optimizer = Optimizer::new(std::slice::from_ref(&codes), &config()).unwrap();
    backward(&[&codes.1]);
    optimizer.step(0.1).unwrap();
    optimizer.clear_gradients().unwrap();
    backward(&[&codes.1]);
    optimizer.reset_rows(&RowReset { parameter: "codes".to_owned(), rows: Tensor::from_slice(&[1i64]) }).unwrap();
    let state = optimizer.state();
    let rows = |name: &str| -> Vec<bool> {
        let tensor = &state.iter().find(|(known, _)| known == name).unwrap().1;
        (0..3).map(|row| value(&tensor.get(row), 0) != 0.0).collect()
    };
    assert_eq!(rows("exp_avg.codes"), [true, false, true]);
    assert_eq!(rows("exp_avg_sq.codes"), [true, false, true]);
    let before = value(&codes.1.get(1), 0);
    optimizer.step(0.1).unwrap();
    assert!((value(&codes.1.get(1), 0) / before - 0.95).abs() < 1e-6, "only weight decay moves a rewritten row");

    let error = optimizer.reset_rows(&RowReset { parameter: "code".to_owned(), rows: Tensor::from_slice(&[1i64]) });
    assert!(error.unwrap_err().to_string().contains("parameter code"));
}

#[test]
fn clipping_is_that_of_torch() {
    let gradients = || vec![Tensor::from_slice(&[3.0f32, 0.0]), Tensor::from_slice(&[4.0f32])];
    let clipped = gradients();
    let norm = norm_and_clip(&clipped, Some(1.0), Device::Cpu).unwrap();
    assert_eq!(norm.double_value(&[]), 5.0, "the norm before clipping");
    let factor = f64::from(1.0f32 / (5.0f32 + 1e-6));
    assert!((value(&clipped[0], 0) - 3.0 * factor).abs() < 1e-7 && (value(&clipped[1], 0) - 4.0 * factor).abs() < 1e-7);

    let short = gradients();
    let _ = norm_and_clip(&short, Some(10.0), Device::Cpu).unwrap();
    assert_eq!(short, gradients(), "a shorter gradient stays as it is");
    let free = gradients();
    assert_eq!(norm_and_clip(&free, None, Device::Cpu).unwrap().double_value(&[]), 5.0);
    assert_eq!(free, gradients());
    assert_eq!(norm_and_clip(&[], Some(1.0), Device::Cpu).unwrap().double_value(&[]), 0.0);
}

#[test]
fn what_cannot_be_trained_is_refused_by_name() {
    let half = ("w".to_owned(), Tensor::ones([2], (Kind::Half, Device::Cpu)).set_requires_grad(true));
    let frozen = ("w".to_owned(), Tensor::ones([2], (Kind::Float, Device::Cpu)));
    for (params, reason) in
        [(vec![half], "float32"), (vec![frozen], "gradient"), (vec![param("w", &[1]), param("w", &[1])], "two")]
    {
        let error = Optimizer::new(&params, &config()).err().unwrap().to_string();
        assert!(error.starts_with("parameter w: ") && error.contains(reason), "{error}");
    }
}
