//! Every dataset of tests/data that has an oracle file reads as LeRobot reads it: `examples/oracle.rs` compares them.
#![cfg(feature = "ffmpeg")]
#![allow(clippy::unwrap_used)]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(name)
}

/// The example programs are built beside the tests.
fn oracle_program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().join("examples/oracle")
}

fn compare(dataset: &Path, oracle: &Path) -> Output {
    Command::new(oracle_program()).args([dataset, oracle]).output().unwrap()
}

fn reads_like_lerobot(name: &str) {
    let output = compare(&data(name), &data(&format!("oracle_{name}.jsonl")));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
    for kind in ["header", "episode", "frame", "pair"] {
        assert!(stdout.lines().any(|line| line.starts_with(kind) && line.ends_with("ok")), "{stdout}");
    }
}

#[test]
fn av1_with_five_tasks() {
    reads_like_lerobot("metaworld_mt5");
}

#[test]
fn av1_with_rewards_and_truth_values() {
    reads_like_lerobot("pusht_scripted");
}

#[test]
fn many_files_two_cameras_and_a_task_that_changes_within_an_episode() {
    reads_like_lerobot("stress_v3");
}

#[test]
fn h264_whose_frames_are_not_stored_in_the_order_of_presentation() {
    reads_like_lerobot("h264_bframes");
}

#[test]
fn h264_in_the_colour_space_bt709() {
    reads_like_lerobot("h264_bt709");
}

#[test]
fn hevc() {
    reads_like_lerobot("hevc");
}

#[test]
fn images_embedded_in_parquet() {
    reads_like_lerobot("embedded_images");
}

#[test]
fn a_value_that_differs_is_reported_and_fails() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("oracle.jsonl");
    let text = std::fs::read_to_string(data("oracle_h264_bframes.jsonl")).unwrap();
    std::fs::write(&wrong, text.replace("\"frame_index\": 3,", "\"frame_index\": 4,")).unwrap();
    let output = compare(&data("h264_bframes"), &wrong);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("frame_index is [3.0], the oracle reads [4.0]"), "{stderr}");
}
