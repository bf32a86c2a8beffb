//! The learning rate over time, against the reference's tables and the figures of its documentation.

use hlrp_schema::{LrScale, SchedulerConfig, SchedulerType};
use hlrp_train::Schedule;
use serde_json::Value;
use std::path::Path;

fn golden(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/schedules").join(file);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn cosine(warmup_steps: u64, warmup_start_lr: f64, min_lr: f64) -> SchedulerConfig {
    SchedulerConfig {
        kind: SchedulerType::Cosine,
        warmup_steps,
        warmup_start_lr,
        min_lr,
        lr_base_size: None,
        lr_base_scale: LrScale::Sqrt,
    }
}

fn schedule(case: &str) -> Schedule {
    let config = &golden("config.json")["laq"][case];
    let number = |key: &str| config[key].as_f64().unwrap_or(0.0);
    let kind = if config["type"] == "cosine" { SchedulerType::Cosine } else { SchedulerType::None };
    let warmup_steps = config["warmup_steps"].as_u64().unwrap_or(0);
    let scheduler = cosine(warmup_steps, number("warmup_start_lr"), number("min_lr"));
    Schedule::new(&SchedulerConfig { kind, ..scheduler }, number("lr"), config["max_steps"].as_u64().unwrap())
}

fn reference(case: &str) -> Vec<f64> {
    serde_json::from_value(golden("outputs.json")[format!("laq.{case}.lr")].clone()).unwrap()
}

fn assert_close(ours: f64, theirs: f64, what: &str) {
    assert!((ours - theirs).abs() <= 1e-9 * theirs.abs() + 1e-18, "{what}: {ours:e} instead of {theirs:e}");
}

#[test]
fn every_rate_of_the_reference_up_to_the_end_of_the_run() {
    for (case, num_rates) in [("yaml_like", 40), ("no_warmup", 30), ("none", 40)] {
        let schedule = schedule(case);
        for (done, theirs) in reference(case).into_iter().take(num_rates).enumerate() {
            assert_close(schedule.lr(done as u64), theirs, &format!("{case}, {done} steps done"));
        }
    }
}

/// The reference starts this warm-up at `min_lr` (it takes a start of 0 for "not set") and climbs back up after the end.
#[test]
fn a_start_of_zero_is_zero_and_the_minimum_is_held_after_the_end() {
    let (schedule, reference) = (schedule("past_end"), reference("past_end"));
    assert!(schedule.lr(0) < 1e-11);
    assert_close(schedule.lr(3), 3e-4 * (1e-8 + (1.0 - 1e-8) / 2.0), "half-way through the warm-up");
    for done in 6..24 {
        assert_close(schedule.lr(done), reference[done as usize], &format!("{done} steps done"));
    }
    for done in [24, 25, 1_000_000] {
        assert_close(schedule.lr(done), 1e-5, &format!("{done} steps done"));
    }
}

#[test]
fn the_documented_figures_of_a_long_run() {
    let schedule = Schedule::new(&cosine(1000, 1e-6, 1e-6), 1e-4, 100_000);
    for (done, expected) in [
        (0, "1.0000e-6"),
        (1, "1.0990e-6"),
        (500, "5.0500e-5"),
        (999, "9.9901e-5"),
        (1000, "1.0000e-4"),
        (25_000, "8.6325e-5"),
        (50_500, "5.0500e-5"),
        (75_000, "1.5777e-5"),
        (100_000, "1.0000e-6"),
    ] {
        assert_eq!(format!("{:.4e}", schedule.lr(done)), expected, "{done} steps done");
    }
}

/// A run of four times the samples for which the rates are meant.
#[test]
fn rates_follow_the_samples_of_a_step_where_that_is_asked_for() {
    let config =
        |lr_base_size, lr_base_scale| SchedulerConfig { lr_base_size, lr_base_scale, ..cosine(10, 1e-6, 1e-5) };
    let as_they_are = Schedule::new(&config(None, LrScale::Linear), 1e-4, 100);
    for (lr_base_scale, factor) in [(LrScale::Sqrt, 2.0), (LrScale::Linear, 4.0)] {
        let config = config(Some(64), lr_base_scale);
        let schedule = Schedule::new(&config, 1e-4, 100).scaled(config.lr_factor(256));
        for done in [0, 5, 10, 60, 100, 1000] {
            assert_close(
                schedule.lr(done),
                factor * as_they_are.lr(done),
                &format!("{lr_base_scale:?}, {done} steps done"),
            );
        }
    }
    assert_eq!(config(None, LrScale::Linear).lr_factor(256), 1.0);
}
