//! LeRobot's normalisation formulas.

use crate::fixtures::distance;
use hlrp_vla::{Normalization, NormalizationMode};
use std::collections::BTreeMap;
use tch::Tensor;

/// Two numbers; the second is constant in the data.
fn statistics() -> BTreeMap<String, Vec<f64>> {
    [
        ("mean", [1.0, 3.0]),
        ("std", [2.0, 0.0]),
        ("min", [-1.0, 3.0]),
        ("max", [3.0, 3.0]),
        ("q01", [0.0, 3.0]),
        ("q99", [2.0, 3.0]),
    ]
    .map(|(name, values)| (name.to_owned(), values.to_vec()))
    .into()
}

fn normalization(mode: NormalizationMode) -> Normalization {
    Normalization::new("action", mode, 2, statistics()).unwrap()
}

#[test]
fn each_mode_scales_as_its_formula_says() {
    let x = Tensor::from_slice(&[2.0_f32, 3.0]);
    let expect = |mode, values: [f32; 2]| {
        let scaled = normalization(mode).normalize(&x);
        assert!(distance(&scaled, &Tensor::from_slice(&values)) < 1e-6, "{mode:?}: {scaled}");
    };
    expect(NormalizationMode::Identity, [2.0, 3.0]);
    expect(NormalizationMode::MeanStd, [0.5, 0.0]);
    expect(NormalizationMode::MinMax, [0.5, -1.0]);
    expect(NormalizationMode::Quantiles, [1.0, -1.0]);
}

#[test]
fn unnormalize_undoes_normalize() {
    let x = Tensor::from_slice(&[2.5_f32, 3.0, -7.0, 3.0]).view([2, 2]);
    for mode in [
        NormalizationMode::Identity,
        NormalizationMode::MeanStd,
        NormalizationMode::MinMax,
        NormalizationMode::Quantiles,
    ] {
        let normalization = normalization(mode);
        assert!(distance(&normalization.unnormalize(&normalization.normalize(&x)), &x) < 1e-5, "{mode:?}");
    }
}

#[test]
fn statistics_that_a_mode_needs_must_be_there() {
    let refuse = |change: fn(&mut BTreeMap<String, Vec<f64>>), what: &str| {
        let mut statistics = statistics();
        change(&mut statistics);
        let error = Normalization::new("action", NormalizationMode::Quantiles, 2, statistics).unwrap_err().to_string();
        assert!(error.contains("statistics of `action`") && error.contains(what) && error.contains("hint:"), "{error}");
    };
    refuse(|statistics| drop(statistics.remove("q99")), "no `q99`");
    refuse(|statistics| drop(statistics.insert("q01".to_owned(), vec![0.0])), "`q01` has 1 numbers where 2 are needed");
    refuse(|statistics| drop(statistics.insert("q01".to_owned(), vec![0.0, f64::NAN])), "not finite");
}
