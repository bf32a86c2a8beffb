//! Offsets, clamping and padding masks are those of LeRobot.
#![allow(clippy::unwrap_used)]

use hlrp_config::with_hint;
use hlrp_data::{EpisodeSpan, Request, Timing};
use hlrp_schema::{DeltaUnit, RequestConfig};
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::Path};

fn config(unit: DeltaUnit, image_deltas: &[f64]) -> RequestConfig {
    RequestConfig { unit, image_deltas: image_deltas.to_vec(), state_deltas: vec![], action_deltas: vec![] }
}

fn resolve(unit: DeltaUnit, image_deltas: &[f64], fps: f64) -> Result<Vec<i64>, String> {
    let timing = Timing { fps, tolerance_s: hlrp_data::TOLERANCE_S, source: "robot", frames_per_unit: None };
    let request = Request::resolve(&config(unit, image_deltas), image_deltas, &[], &timing);
    request.map(|request| request.image_deltas).map_err(|error| with_hint(&error))
}

/// Masks that LeRobot itself gave, many of them at an episode's ends and with negative offsets.
fn masks_equal_lerobots(oracle: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(oracle);
    let lines: Vec<Value> =
        fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_kind = |kind: &'static str| lines.iter().filter(move |line| line["kind"] == kind);
    let header = of_kind("header").next().unwrap();
    let (fps, chunk) = (header["fps"].as_f64().unwrap(), header["chunk"].as_i64().unwrap());
    let spans: BTreeMap<u64, EpisodeSpan> = of_kind("episode")
        .map(|line| {
            let [episode, from_row, to_row] = ["episode", "start", "end"].map(|key| line[key].as_u64().unwrap());
            (episode, EpisodeSpan { episode, from_row, to_row })
        })
        .collect();

    let (mut num_pairs, mut num_padded) = (0, 0);
    for pair in of_kind("pair") {
        let (row, k) = (pair["i"].as_u64().unwrap(), pair["k"].as_i64().unwrap());
        let span = spans[&pair["episode_index"].as_u64().unwrap()];
        // LeRobot was asked in seconds.
        let images = resolve(DeltaUnit::Seconds, &[0.0, k as f64 / fps], fps).unwrap();
        assert_eq!(images, [0, k]);
        let action_seconds: Vec<f64> = (0..chunk).map(|step| step as f64 / fps).collect();
        let actions = resolve(DeltaUnit::Seconds, &action_seconds, fps).unwrap();
        for (key, value) in pair.as_object().unwrap() {
            let deltas = match key.strip_suffix("_is_pad") {
                Some("action") => &actions,
                Some(_) => &images,
                None => continue,
            };
            let (rows, is_pad) = span.window(row, deltas);
            assert_eq!(serde_json::json!(is_pad), *value, "row {row}, {key}");
            assert!(rows.iter().all(|row| (span.from_row..span.to_row).contains(row)));
            num_padded += is_pad.iter().filter(|is_pad| **is_pad).count();
        }
        num_pairs += 1;
    }
    assert_eq!(num_pairs, header["n"].as_u64().unwrap());
    assert!(num_padded > 20, "{num_padded} padded entries test little");
}

#[test]
fn masks_equal_lerobots_on_metaworld() {
    masks_equal_lerobots("oracle_metaworld_mt5.jsonl");
}

#[test]
fn masks_equal_lerobots_on_pusht() {
    masks_equal_lerobots("oracle_pusht_scripted.jsonl");
}

#[test]
fn masks_equal_lerobots_on_short_episodes() {
    masks_equal_lerobots("oracle_stress_v3.jsonl");
}

#[test]
fn rows_outside_an_episode_are_clamped_to_its_ends() {
    let span = EpisodeSpan { episode: 3, from_row: 10, to_row: 15 };
    let (rows, is_pad) = span.window(12, &[-13, -3, -2, 0, 2, 3, 100]);
    assert_eq!(rows, [10, 10, 10, 12, 14, 14, 14]);
    assert_eq!(is_pad, [true, true, false, false, false, true, true]);
}

#[test]
fn seconds_become_frames_of_each_dataset() {
    assert_eq!(resolve(DeltaUnit::Seconds, &[0.0, 0.5, -1.0], 30.0).unwrap(), [0, 15, -30]);
    assert_eq!(resolve(DeltaUnit::Seconds, &[0.0, 0.5, -1.0], 12.0).unwrap(), [0, 6, -12]);
    // Within LeRobot's tolerance of 1e-4 s.
    assert_eq!(resolve(DeltaUnit::Seconds, &[0.33339], 3.0).unwrap(), [1]);
}

#[test]
fn seconds_between_two_frames_are_refused_with_the_nearest_offset() {
    let error = resolve(DeltaUnit::Seconds, &[0.0, 0.33], 30.0).unwrap_err();
    assert!(error.starts_with(
        "data.request.image_deltas: 0.33 s is not a whole number of frames of source `robot`, which runs at 30"
    ));
    assert!(error.ends_with("hint: the nearest possible offset is 0.3333333333333333 s"), "{error}");
}
