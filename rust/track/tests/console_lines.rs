//! What the console writes where there is no terminal. Each case runs in a process of its own: this test program, started again.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use hlrp_track::console::{self, Progress};
use std::{fs, path::PathBuf, process::Command};
use tracing::level_filters::LevelFilter;

const RANK: &str = "CONSOLE_TEST_RANK";
const LOG: &str = "CONSOLE_TEST_LOG";

/// What the processes do; nothing when it runs as a test of its own.
#[test]
fn speak() {
    let (Ok(rank), Ok(log)) = (std::env::var(RANK), std::env::var(LOG)) else { return };
    console::init(LevelFilter::INFO, rank.parse().unwrap()).unwrap();
    tracing::info!(target: "hlrp_train::engine", "before the file");
    console::log_to(&PathBuf::from(log)).unwrap();
    tracing::warn!(target: "hlrp_data::video", episode = 3, "a bad frame");
    tracing::debug!(target: "hlrp_data::video", "too fine");
    tracing::info!(target: "some_crate", "of no interest here");
    let mut progress = Progress::new(200, 100);
    progress.advance(110);
    progress.set(120, &[("loss", 0.123_456), ("lr", 1e-4)]);
    progress.finish();
    console::print("the table");
    assert!(console::init(LevelFilter::INFO, 0).is_err(), "only once");
    panic!("out of luck");
}

struct Spoken {
    stdout: String,
    stderr: String,
    log: Option<String>,
}

fn listen(rank: usize) -> Spoken {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("unified.log");
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "speak", "--nocapture"])
        .envs([(RANK, rank.to_string()), (LOG, log.display().to_string())])
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Spoken { stdout: text(output.stdout), stderr: text(output.stderr), log: fs::read_to_string(log).ok() }
}

/// `[YYYY-MM-DD HH:MM:SS]` as zeros and the rest of the line.
fn without_time(text: &str) -> Vec<String> {
    let digits_to_zero = |c: char| if c.is_ascii_digit() { '0' } else { c };
    text.lines()
        .filter_map(|line| line.split_once(']'))
        .filter(|(time, _)| time.chars().map(digits_to_zero).eq("[0000-00-00 00:00:00".chars()))
        .map(|(_, rest)| rest.to_owned())
        .collect()
}

#[test]
fn lines_go_to_standard_error_and_the_file_and_the_table_to_standard_output() {
    let Spoken { stdout, stderr, log } = listen(0);
    let lines = without_time(&stderr);
    assert_eq!(lines[0], "[train.engine][INFO] - before the file");
    assert_eq!(lines[1], "[data.video][WARN] - a bad frame episode=3");
    let progress = "[progress][INFO] - [Step 120/200] loss=0.1235, lr=1.00e-04 | ";
    assert!(lines[2].starts_with(progress) && lines[2].contains(" steps/s, ETA "), "{}", lines[2]);
    assert!(lines[3].starts_with("[panic][ERROR] - ") && stderr.contains("out of luck"), "{stderr}");
    assert_eq!(lines.len(), 4, "{stderr}");
    assert!(!stderr.contains('\u{1b}'), "no colours and no bar outside a terminal: {stderr:?}");
    assert!(stdout.lines().any(|line| line == "the table"), "{stdout}");

    let log = log.unwrap();
    assert_eq!(without_time(&log), lines[1..], "the file has every line since it was opened");
    assert!(log.contains("out of luck"), "and the panic");
}

#[test]
fn other_ranks_only_warn() {
    let Spoken { stdout, stderr, log } = listen(1);
    let lines = without_time(&stderr);
    assert_eq!(lines[0], "[data.video][WARN] - rank 1: a bad frame episode=3");
    assert!(lines[1].starts_with("[panic][ERROR] - rank 1: "), "{stderr}");
    assert_eq!(lines.len(), 2, "{stderr}");
    assert!(!stdout.contains("the table"), "{stdout}");
    assert_eq!(log, None);
}
