//! Scalars as lines of `metrics.jsonl`; see [`crate::metrics`] for the format.

use super::{Sink, SinkSetup};
use crate::{
    Result, TrackError,
    fs::{sync_dir, write_atomic},
    metrics::{FILE_NAME, Lines, SUPERSEDED_FILE_NAME, read_text, split},
    time::unix_time,
};
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

/// Appends rows to the `metrics.jsonl` of one run directory.
#[derive(Debug)]
pub struct JsonlSink {
    path: PathBuf,
    file: File,
    reported_not_finite: BTreeSet<String>,
}

/// The sink of the run that `setup` describes; it has no options and is always open, because plots, tables and a resume read its file.
pub(super) fn open(setup: &SinkSetup<'_>, _options: &Value) -> Result<Option<Box<dyn Sink>>> {
    Ok(Some(Box::new(match setup.step {
        0 if !setup.run_dir.join(FILE_NAME).exists() => JsonlSink::create(setup.run_dir)?,
        step => JsonlSink::resume(setup.run_dir, step)?,
    })))
}

impl Sink for JsonlSink {
    fn scalars(&mut self, step: u64, scalars: &[(String, f64)]) -> Result<()> {
        self.write(step, scalars.iter().map(|(name, value)| (name, *value)))
    }

    fn flush(&mut self) -> Result<()> {
        self.file.sync_all().map_err(TrackError::io("flush", &self.path))
    }
}

impl JsonlSink {
    /// Starts the metrics of a new run in the folder `run_dir`.
    ///
    /// # Errors
    /// The file exists already, or cannot be created.
    pub fn create(run_dir: &Path) -> Result<Self> {
        let path = run_dir.join(FILE_NAME);
        if path.exists() {
            return Err(TrackError::Exists { path });
        }
        Self::open(path)
    }

    /// Continues after `step` (0 = from the beginning): rows beyond it, and torn lines, move to `metrics.superseded.jsonl`.
    ///
    /// A kill between the two writes leaves rows in both files; the next resume moves them again.
    ///
    /// # Errors
    /// A file cannot be read or written, or holds something else than rows.
    pub fn resume(run_dir: &Path, step: u64) -> Result<Self> {
        let path = run_dir.join(FILE_NAME);
        if path.exists() {
            let text = read_text(&path)?;
            let Lines { rows, torn } = split(&path, &text)?;
            let (kept, superseded): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(_, row)| row.step <= step);
            let mut moved = lines(superseded.iter().map(|(line, _)| *line));
            moved.extend(torn.iter().map(|text| format!("{}\n", json!({ "torn": text }))));
            if !moved.is_empty() {
                append_durably(&run_dir.join(SUPERSEDED_FILE_NAME), &moved)?;
                write_atomic(&path, lines(kept.iter().map(|(line, _)| *line)))?;
            }
        }
        Self::open(path)
    }

    fn open(path: PathBuf) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(TrackError::io("open", &path))?;
        Ok(Self { path, file, reported_not_finite: BTreeSet::new() })
    }

    /// Appends one row: `values` by name, measured after `step` optimizer steps. The row reaches the operating system in one write.
    ///
    /// # Errors
    /// A name is `step` or `time`, or the file cannot be written.
    pub fn write<N: AsRef<str>>(&mut self, step: u64, values: impl IntoIterator<Item = (N, f64)>) -> Result<()> {
        let mut row = Map::new();
        row.insert("step".into(), json!(step));
        row.insert("time".into(), json!((unix_time() * 1e3).round() / 1e3));
        for (name, value) in values {
            let name = name.as_ref();
            if name == "step" || name == "time" {
                return Err(TrackError::ReservedMetric { name: name.into() });
            }
            if !value.is_finite() && self.reported_not_finite.insert(name.into()) {
                tracing::warn!("{name} is {value} at step {step}; metrics.jsonl holds null for such values");
            }
            row.insert(name.into(), json!(value)); // null when not finite
        }
        let line = format!("{}\n", Value::Object(row));
        let whole = self.file.metadata().map_err(TrackError::io("inspect", &self.path))?.len();
        self.file.write_all(line.as_bytes()).map_err(|error| {
            // A partial line would corrupt the next one. If this fails too, the next resume moves the line out.
            let _ = self.file.set_len(whole);
            TrackError::io("append to", &self.path)(error)
        })
    }
}

fn lines<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    lines.flat_map(|line| [line, "\n"]).collect()
}

fn append_durably(path: &Path, text: &str) -> Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(TrackError::io("open", path))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(TrackError::io("append to", path))?;
    sync_dir(crate::fs::parent_of(path))
}
