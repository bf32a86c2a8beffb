//! What a run says of its speed.

use crate::common::{alone, settings, train};
use hlrp_track::metrics::{MetricsRow, read_metrics};

#[test]
fn the_rate_of_operations_is_counted_from_the_shapes_of_a_step() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    train(settings(&run_dir, &[])).unwrap();
    let rows = read_metrics(&run_dir.join("metrics.jsonl")).unwrap();
    let per_step = |row: &MetricsRow| {
        let (rate, steps) = (row.get("perf/tflops_per_sec")?, row.get("perf/steps_per_sec")?);
        Some((row.step, (rate * 1e12 / steps).round()))
    };
    let counted: Vec<(u64, f64)> = rows.iter().filter_map(per_step).collect();
    // Four samples; layers of 4 x 16 and 16 x 2. Forward, the gradients of both weights, and that of the second layer's input.
    let flops = 2.0 * 4.0 * (2.0 * (4.0 * 16.0) + 3.0 * (16.0 * 2.0));
    assert_eq!(counted, (2..=12).map(|step| (step, flops)).collect::<Vec<_>>());
    // More than the parameters and their gradients, and no more than a small step of such layers can move.
    let bytes = rows.iter().filter_map(|row| Some(row.get("perf/gb_per_sec")? * 1e9 / row.get("perf/steps_per_sec")?));
    let bytes: Vec<f64> = bytes.collect();
    assert_eq!(bytes.len(), counted.len());
    let least = 2.0 * 4.0 * (4.0 * 16.0 + 16.0 * 2.0);
    assert!(bytes.iter().all(|bytes| (least..50.0 * least).contains(bytes)), "{bytes:?}");
    assert!(rows.iter().all(|row| row.get("perf/mfu").is_none()), "the rate of a CPU is not known");
}
