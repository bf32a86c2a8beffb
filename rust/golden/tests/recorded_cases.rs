//! Every recorded case of `tests/golden` passes.
#![allow(clippy::unwrap_used)] // a test may panic

use std::path::Path;
use std::process::{Command, Output};

fn golden(cases: &str) -> Output {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    Command::new(env!("CARGO_BIN_EXE_hlrp-golden")).arg(dir).args(["--cases", cases]).output().unwrap()
}

/// Runs the cases that match `glob` and expects `num_cases` lines, all of them ok.
fn assert_all_pass(glob: &str, num_cases: usize) {
    let output = golden(glob);
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{report}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(report.lines().filter(|line| line.contains(" ok ")).count(), num_cases, "{report}");
}

#[test]
fn the_quantizer() {
    assert_all_pass("nsvq_*", 7);
}

#[test]
fn the_pixel_model() {
    assert_all_pass("laq_pixel*", 2);
}

#[test]
fn ten_optimizer_steps() {
    assert_all_pass("laq_train", 1);
}

#[test]
fn learning_rates() {
    assert_all_pass("schedules", 1);
}

#[test]
fn the_backbone() {
    assert_all_pass("smolvlm", 1);
}

#[test]
fn texts_and_pictures() {
    assert_all_pass("tokenizer", 1);
    assert_all_pass("image_preprocess", 1);
}

#[test]
fn the_expert_policy() {
    assert_all_pass("smolvla_expert_*", 3);
}

#[test]
fn the_pooled_policy() {
    assert_all_pass("vla_pooled", 1);
}

#[test]
fn a_case_that_does_not_exist_fails() {
    let output = golden("no_such_case");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no case that matches `no_such_case`"));
}
