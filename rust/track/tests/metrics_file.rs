//! `metrics.jsonl` after a kill and a resume is that of an uninterrupted run.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use hlrp_track::{
    TrackError,
    metrics::{FILE_NAME, MetricsRow, SUPERSEDED_FILE_NAME, is_time_field, read_metrics, series},
    sinks::JsonlSink,
};
use std::{fs, io::Write, ops::RangeInclusive, path::Path};

/// Every step has a row; every second step has a second one, as validation writes it.
fn write_steps(writer: &mut JsonlSink, steps: RangeInclusive<u64>) {
    for step in steps {
        let loss = 1.0 / (step as f64 + 0.1);
        writer.write(step, [("train/loss", loss), ("perf/steps_per_sec", loss * 100.0)]).unwrap();
        if step % 2 == 0 {
            writer.write(step, [("val/loss", loss * 1.1)]).unwrap();
        }
    }
}

fn rows(dir: &Path) -> Vec<MetricsRow> {
    read_metrics(&dir.join(FILE_NAME)).unwrap()
}

/// Everything that two equal runs share.
fn deterministic(rows: &[MetricsRow]) -> Vec<(u64, Vec<(&str, u64)>)> {
    rows.iter().map(MetricsRow::deterministic).collect()
}

#[test]
fn a_row_is_one_json_object_with_step_and_time_first() {
    let dir = tempfile::tempdir().unwrap();
    JsonlSink::create(dir.path()).unwrap().write(7, [("train/loss", 0.5), ("val/mse", f64::NAN)]).unwrap();
    let text = fs::read_to_string(dir.path().join(FILE_NAME)).unwrap();
    assert!(text.starts_with("{\"step\":7,\"time\":"), "{text}");
    assert!(text.ends_with(",\"train/loss\":0.5,\"val/mse\":null}\n"), "{text}");
    let rows = rows(dir.path());
    assert_eq!(rows[0].get("train/loss"), Some(0.5));
    assert!(rows[0].get("val/mse").unwrap().is_nan());
    assert!(rows[0].time > 1.7e9, "Unix time");
}

#[test]
fn values_come_back_to_the_last_bit() {
    let dir = tempfile::tempdir().unwrap();
    let values: Vec<f64> =
        (1..2000u64).map(|n| f64::from_bits(n.wrapping_mul(0x9E37_79B9_7F4A_7C15))).filter(|v| v.is_finite()).collect();
    let mut writer = JsonlSink::create(dir.path()).unwrap();
    for (step, value) in values.iter().enumerate() {
        writer.write(step as u64, [("x", *value)]).unwrap();
    }
    let read: Vec<f64> = series(&rows(dir.path()), "x").into_iter().map(|(_, value)| value).collect();
    assert_eq!(read, values);
}

#[test]
fn time_fields_are_exactly_those_documented() {
    for name in ["time", "time/data_wait", "perf/samples_per_sec"] {
        assert!(is_time_field(name), "{name}");
    }
    for name in ["train/loss", "train/time", "timer", "performance", "step"] {
        assert!(!is_time_field(name), "{name}");
    }
}

#[test]
fn a_resumed_run_ends_with_the_rows_of_an_uninterrupted_one() {
    let whole = tempfile::tempdir().unwrap();
    write_steps(&mut JsonlSink::create(whole.path()).unwrap(), 1..=10);
    for (killed_at, resumed_at) in [(7, 4), (9, 9), (3, 0), (10, 6)] {
        let dir = tempfile::tempdir().unwrap();
        write_steps(&mut JsonlSink::create(dir.path()).unwrap(), 1..=killed_at);
        write_steps(&mut JsonlSink::resume(dir.path(), resumed_at).unwrap(), resumed_at + 1..=10);
        assert_eq!(deterministic(&rows(dir.path())), deterministic(&rows(whole.path())), "killed at {killed_at}");
        let superseded = dir.path().join(SUPERSEDED_FILE_NAME);
        if killed_at == resumed_at {
            assert!(!superseded.exists(), "nothing was superseded");
        } else {
            let steps: Vec<u64> = read_metrics(&superseded).unwrap().iter().map(|row| row.step).collect();
            assert_eq!((steps[0], *steps.last().unwrap()), (resumed_at + 1, killed_at), "kept, not lost");
        }
    }
}

#[test]
fn a_line_torn_by_a_kill_is_moved_out() {
    let whole = tempfile::tempdir().unwrap();
    write_steps(&mut JsonlSink::create(whole.path()).unwrap(), 1..=5);
    for torn in
        [&b"{\"step\":4,\"ti"[..], b"{\"step\":4,\"time\":1.0,\"train/loss\":0.", b"\xc3", b"{\"step\":4,\"time\":1.0}"]
    {
        let dir = tempfile::tempdir().unwrap();
        write_steps(&mut JsonlSink::create(dir.path()).unwrap(), 1..=3);
        let path = dir.path().join(FILE_NAME);
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(torn).unwrap();
        assert_eq!(rows(dir.path()).len(), 4, "a reader sees the whole rows");
        write_steps(&mut JsonlSink::resume(dir.path(), 3).unwrap(), 4..=5);
        assert_eq!(deterministic(&rows(dir.path())), deterministic(&rows(whole.path())));
        let superseded = fs::read_to_string(dir.path().join(SUPERSEDED_FILE_NAME)).unwrap();
        assert!(superseded.starts_with("{\"torn\":"), "{superseded}");
    }
}

/// What an older version left where the disk was full: a part of a row, and the next row after it on the same line.
#[test]
fn a_row_that_was_appended_to_a_torn_one_is_moved_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    let text = "{\"step\":1,\"time\":1.0}\n{\"step\":2,\"ti{\"step\":3,\"time\":1.0}\n{\"step\":4,\"time\":1.0}\n";
    fs::write(&path, text).unwrap();
    JsonlSink::resume(dir.path(), 4).unwrap().write(5, [("x", 1.0)]).unwrap();
    assert_eq!(rows(dir.path()).iter().map(|row| row.step).collect::<Vec<_>>(), [1, 4, 5]);
    assert!(!fs::read_to_string(&path).unwrap().contains("\"ti{"), "the file itself is whole again");
    let superseded = fs::read_to_string(dir.path().join(SUPERSEDED_FILE_NAME)).unwrap();
    assert!(superseded.starts_with("{\"torn\":"), "{superseded}");
}

#[test]
fn a_foreign_line_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    fs::write(&path, "{\"step\":1,\"time\":1.0}\nhello\n{\"step\":2,\"time\":1.0}\n").unwrap();
    for error in [read_metrics(&path).unwrap_err(), JsonlSink::resume(dir.path(), 0).unwrap_err()] {
        assert!(matches!(error, TrackError::Malformed { line: Some(2), .. }), "{error}");
    }
}

#[test]
fn a_new_run_does_not_append_to_an_old_file_and_reserved_names_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = JsonlSink::create(dir.path()).unwrap();
    for name in ["step", "time"] {
        assert!(matches!(writer.write(1, [(name, 1.0)]), Err(TrackError::ReservedMetric { .. })));
    }
    assert!(matches!(JsonlSink::create(dir.path()), Err(TrackError::Exists { .. })));
}
