//! `metrics.jsonl`: one JSON object for each line, `{"step": N, "time": T, name: value, …}`.
//!
//! `step` counts finished optimizer steps; `time` is Unix time in seconds. Several lines may share a step (training, validation).
//! A value that is not finite is written as `null`, which JSON can hold, and read back as NaN.
//!
//! **What may differ between two equal runs.** Exactly the keys for which [`is_time_field`] holds: `time`, and names that start with
//! `time/` or `perf/`. Everything else is a pure function of configuration, seed and data.
//!
//! **Resume.** A run that continues from step N first moves the lines beyond N to `metrics.superseded.jsonl`, so that in the end
//! `metrics.jsonl` is that of an uninterrupted run. The lines of step N must therefore be written before the checkpoint of step N.

mod reader;
mod spec;

pub(crate) use reader::{Lines, read_text, split};
pub use reader::{MetricsRow, read_last_metrics, read_metrics, series};
pub use spec::{Better, Curve, MetricSpec, shown};

/// Name of the file in a run directory.
pub const FILE_NAME: &str = "metrics.jsonl";
/// Where a resumed run keeps the lines that it will produce again, and torn lines as `{"torn": text}`.
pub const SUPERSEDED_FILE_NAME: &str = "metrics.superseded.jsonl";

/// Whether `key` holds a measured time or rate, which no seed can repeat.
pub fn is_time_field(key: &str) -> bool {
    key == "time" || key.starts_with("time/") || key.starts_with("perf/")
}
