//! Numbers of probes beside those of NumPy on the same arrays: `sin` and `cos` of row numbers, 12 pairs of the fit and 8 of the test, two
//! pairs per episode.
#![allow(clippy::unwrap_used)] // a test may panic

use super::linear::{Features, ridge};
use super::score::{Estimate, Resamples, partial};
use super::{every_fourth, mean};
use tch::{Kind, Tensor};

const NUM_FIT: i64 = 12;
const NUM_TEST: i64 = 8;

// NumPy 2, float64: `solve` of the normal equations, `quantile`, `svd`.
const FIRST: [f64; 2] = [0.8601167250814277, 0.6938577787514997];
const LAST: [f64; 2] = [0.631204341724092, 0.5005483688377169];
const R2: [f64; 2] = [0.5309274866485041, -0.21123072378438135];
const RESAMPLED: [f64; 4] = [0.15984838143206137, 0.08625537110925108, 0.4453827009931332, 0.09539451331401227];
const LOW_HIGH: [f64; 2] = [0.08671232821948914, 0.42788329160917715];
const PARTIAL: f64 = 0.016883563222203614;
const COMPONENTS_FIT: [f64; 3] = [0.21551872810806766, 0.8160208627602863, 0.8210156342423065];
const COMPONENTS_TEST: [f64; 3] = [0.3996519627959344, 0.9649166150029012, 0.47490765787178046];

/// Features of the columns `columns`: sin((row + 1) · frequency).
fn features(columns: &[usize]) -> Features {
    let frequencies = [1.0, 2.3, 0.7];
    let column = |column: &usize| (rows() + 1.0) * frequencies[*column];
    let all = Tensor::stack(&columns.iter().map(column).collect::<Vec<_>>(), 1).sin();
    Features { fit_NP: all.narrow(0, 0, NUM_FIT), test_MP: all.narrow(0, NUM_FIT, NUM_TEST) }
}

/// Two noisy combinations of the features.
fn target() -> Features {
    let [a, b, c] = [1.0, 2.3, 0.7].map(|frequency| ((rows() + 1.0) * frequency).sin());
    let first = a * 2.0 - b + (rows() * 3.0).cos() * 1.5;
    let second = c + (rows() * 5.0).cos() * 6.0;
    let all = Tensor::stack(&[first, second], 1);
    Features { fit_NP: all.narrow(0, 0, NUM_FIT), test_MP: all.narrow(0, NUM_FIT, NUM_TEST) }
}

fn rows() -> Tensor {
    Tensor::arange(NUM_FIT + NUM_TEST, (Kind::Double, tch::Device::Cpu))
}

fn episodes() -> [Vec<i64>; 2] {
    [(0..NUM_FIT).map(|row| row / 2).collect(), (NUM_FIT..NUM_FIT + NUM_TEST).map(|row| row / 2).collect()]
}

fn predicted(columns: &[usize]) -> Tensor {
    let [fit, _] = episodes();
    ridge(&features(columns), &target().fit_NP, &every_fourth(&fit, &[0, 1, 2, 3, 4, 5]))
}

fn resamples() -> Resamples {
    let drawn = Tensor::from_slice(&[0_i64, 0, 2, 3, 1, 1, 1, 3, 2, 3, 3, 0]).view([3, 4]);
    Resamples::of(&episodes()[1], &[6, 7, 8, 9], &drawn)
}

fn assert_close(found: &[f64], expected: &[f64]) {
    assert!(found.len() == expected.len(), "{found:?}");
    assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{found:?}, not {expected:?}");
}

#[test]
fn a_ridge_predicts_what_the_normal_equations_give_with_the_penalty_of_the_fourth_episode() {
    let [fit, _] = episodes();
    let held_out = Vec::<bool>::try_from(every_fourth(&fit, &[0, 1, 2, 3, 4, 5])).unwrap();
    assert_eq!(held_out.iter().filter(|is_held_out| **is_held_out).count(), 2);
    assert!(held_out[6] && held_out[7], "episode 3");
    let predicted = predicted(&[0, 1, 2]);
    let row = |index| Vec::<f64>::try_from(predicted.select(0, index)).unwrap();
    assert_close(&row(0), &FIRST);
    assert_close(&row(NUM_TEST - 1), &LAST);
}

#[test]
fn r2_and_its_interval_are_those_of_the_resampled_episodes() {
    let r2_RA = resamples().r2(&target().test_MP, &predicted(&[0, 1, 2]));
    assert_close(&Vec::try_from(r2_RA.select(0, 0)).unwrap(), &R2);
    let mean_R = mean(&r2_RA);
    assert_close(&Vec::try_from(&mean_R).unwrap(), &RESAMPLED);
    let Estimate { value, low, high } = Estimate::of(&mean_R);
    assert_close(&[value, low, high], &[RESAMPLED[0], LOW_HIGH[0], LOW_HIGH[1]]);
}

#[test]
fn the_partial_r2_is_the_part_of_what_the_context_leaves_open() {
    let r2 = |columns: &[usize]| mean(&resamples().r2(&target().test_MP, &predicted(columns)));
    let partial_R = partial(&r2(&[0, 1, 2]), &r2(&[0]));
    assert_close(&[partial_R.double_value(&[0])], &[PARTIAL]);
}

#[test]
fn components_are_those_of_a_singular_value_decomposition() {
    let Features { fit_NP, test_MP } = features(&[0, 1, 2]).components(64);
    assert_eq!((fit_NP.size(), test_MP.size()), (vec![NUM_FIT, 3], vec![NUM_TEST, 3]));
    let first = |rows: &Tensor| Vec::<f64>::try_from(rows.select(0, 0).abs()).unwrap(); // signs are arbitrary
    assert_close(&first(&fit_NP), &COMPONENTS_FIT);
    assert_close(&first(&test_MP), &COMPONENTS_TEST);
}

#[test]
fn the_draws_of_a_resample_are_the_same_each_time_and_leave_the_generator_alone() {
    tch::manual_seed(7);
    let expected = Tensor::rand([4], tch::kind::FLOAT_CPU);
    tch::manual_seed(7);
    let [_, test] = episodes();
    let score = || {
        let r2_RA = Resamples::new(&test).unwrap().r2(&target().test_MP, &predicted(&[0, 1, 2]));
        let Estimate { value, low, high } = Estimate::of(&mean(&r2_RA));
        [value, low, high]
    };
    let [value, low, high] = score();
    assert!(low < value && value < high, "{value} in [{low}, {high}]");
    assert_eq!(score(), [value, low, high]);
    assert_eq!(Tensor::rand([4], tch::kind::FLOAT_CPU), expected);
}
