//! LeRobot's normalisation formulas.

use crate::fixtures::distance;
use hlrp_config::{Check, Hint};
use hlrp_schema::policy::{Scaling, ScalingMode};
use hlrp_vla::{normalize, unnormalize};
use std::collections::BTreeMap;
use tch::Tensor;

/// Two dimensions; the second is constant in the data.
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

fn scaling(mode: ScalingMode) -> Scaling {
    Scaling { mode, dim: Some(2), statistics: Some(statistics()) }
}

#[test]
fn each_mode_scales_as_its_formula_says() {
    let x = Tensor::from_slice(&[2.0_f32, 3.0]);
    let expect = |mode, values: [f32; 2]| {
        let scaled = normalize(&scaling(mode), &x);
        assert!(distance(&scaled, &Tensor::from_slice(&values)) < 1e-6, "{mode:?}: {scaled}");
    };
    expect(ScalingMode::Identity, [2.0, 3.0]);
    expect(ScalingMode::MeanStd, [0.5, 0.0]);
    expect(ScalingMode::MinMax, [0.5, -1.0]);
    expect(ScalingMode::Quantiles, [1.0, -1.0]);
}

#[test]
fn a_dimension_that_was_constant_keeps_its_own_scale_when_it_moves() {
    let x = Tensor::from_slice(&[1.0_f32, 3.5]);
    for mode in [ScalingMode::MeanStd, ScalingMode::MinMax, ScalingMode::Quantiles] {
        let scaled = normalize(&scaling(mode), &x);
        assert!(scaled.abs().max().double_value(&[]) <= 1.0, "{mode:?}: {scaled}");
    }
    // A std that is float32's rounding of a large mean is none.
    let rounding = BTreeMap::from([("mean".to_owned(), vec![1e4]), ("std".to_owned(), vec![1e-3])]);
    let scaling = Scaling { mode: ScalingMode::MeanStd, dim: Some(1), statistics: Some(rounding) };
    assert_eq!(normalize(&scaling, &Tensor::from_slice(&[1e4_f32 + 2.0])).double_value(&[0]), 2.0);
}

#[test]
fn unnormalize_undoes_normalize() {
    let x = Tensor::from_slice(&[2.5_f32, 3.0, -7.0, 3.0]).view([2, 2]);
    for mode in [ScalingMode::Identity, ScalingMode::MeanStd, ScalingMode::MinMax, ScalingMode::Quantiles] {
        let scaling = scaling(mode);
        assert!(distance(&unnormalize(&scaling, &normalize(&scaling, &x)), &x) < 1e-5, "{mode:?}");
    }
}

#[test]
fn statistics_that_a_mode_needs_must_be_there() {
    let refuse = |change: fn(&mut BTreeMap<String, Vec<f64>>), what: &str| {
        let mut statistics = statistics();
        change(&mut statistics);
        let scaling = Scaling { statistics: Some(statistics), ..scaling(ScalingMode::Quantiles) };
        let error = scaling.check().unwrap_err();
        assert!(error.key() == Some("statistics") && error.to_string().contains(what), "{error}");
        assert!(Hint::hint(&error).is_some(), "{error}");
    };
    refuse(|statistics| drop(statistics.remove("q99")), "no `q99`");
    refuse(|statistics| drop(statistics.insert("q01".to_owned(), vec![0.0])), "`q01` has 1 values where 2 are needed");
    refuse(|statistics| drop(statistics.insert("q01".to_owned(), vec![0.0, f64::NAN])), "not finite");
}
