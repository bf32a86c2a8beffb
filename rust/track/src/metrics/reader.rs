//! Reads `metrics.jsonl`, also while it is still written.

use super::is_time_field;
use crate::{Result, TrackError};
use serde_json::{Map, Value};
use std::{
    fs,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// One line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricsRow {
    /// Optimizer steps done.
    pub step: u64,
    /// Unix time in seconds.
    pub time: f64,
    /// Values by name, in written order; NaN where the value was not finite.
    pub values: Vec<(String, f64)>,
}

impl MetricsRow {
    /// The value called `name`.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(key, _)| key == name).map(|(_, value)| *value)
    }

    /// The step and the values that two equal runs share to the last bit (as bits, so that NaN equals NaN).
    pub fn deterministic(&self) -> (u64, Vec<(&str, u64)>) {
        let values = self.values.iter().filter(|(name, _)| !is_time_field(name));
        (self.step, values.map(|(name, value)| (name.as_str(), value.to_bits())).collect())
    }

    /// Parses one line; `None` when it is not a whole row.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut object: Map<String, Value> = serde_json::from_str(line).ok()?;
        let step = object.shift_remove("step")?.as_u64()?;
        let time = object.shift_remove("time")?.as_f64()?;
        let number = |value: Value| if value.is_null() { Some(f64::NAN) } else { value.as_f64() };
        let values = object.into_iter().map(|(name, value)| Some((name, number(value)?))).collect::<Option<_>>()?;
        Some(Self { step, time, values })
    }
}

/// All rows of `path`, in written order. A torn line, left by a kill or a full disk, is not a row.
///
/// # Errors
/// The file cannot be read, or a line is neither a row nor the start of one.
pub fn read_metrics(path: &Path) -> Result<Vec<MetricsRow>> {
    let text = read_text(path)?;
    Ok(split(path, &text)?.rows.into_iter().map(|(_, row)| row).collect())
}

/// Bytes at the end of a file that [`read_last_metrics`] reads.
const LAST_BYTES: u64 = 64 << 10;

/// The newest rows of `path`, in written order: those in the last 64 KiB of the file. Lines that are not rows are left out.
///
/// # Errors
/// The file cannot be read.
pub fn read_last_metrics(path: &Path) -> Result<Vec<MetricsRow>> {
    let read = || {
        let mut file = fs::File::open(path)?;
        let start = file.metadata()?.len().saturating_sub(LAST_BYTES);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        io::Result::Ok(bytes)
    };
    let bytes = read().map_err(TrackError::io("read", path))?;
    Ok(String::from_utf8_lossy(&bytes).lines().filter_map(MetricsRow::parse).collect())
}

/// The steps and values of one metric.
pub fn series(rows: &[MetricsRow], name: &str) -> Vec<(u64, f64)> {
    rows.iter().filter_map(|row| Some((row.step, row.get(name)?))).collect()
}

/// The text of `path`; a character that a kill cut in two becomes a replacement character in the torn line.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(TrackError::io("read", path))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A metrics file, taken apart.
pub(crate) struct Lines<'a> {
    /// Whole lines without their line ends, and what they say.
    pub(crate) rows: Vec<(&'a str, MetricsRow)>,
    /// Starts of rows: what follows the last whole line, and rows cut by a full disk that others were appended to.
    pub(crate) torn: Vec<&'a str>,
}

/// The start of every row.
const ROW_START: &str = "{\"step\":";

/// Takes the text of a metrics file apart.
pub(crate) fn split<'a>(path: &Path, text: &'a str) -> Result<Lines<'a>> {
    let mut lines = Lines { rows: Vec::new(), torn: Vec::new() };
    let mut rest = text.split_inclusive('\n').enumerate().peekable();
    while let Some((index, line)) = rest.next() {
        let row = line.strip_suffix('\n').and_then(|line| Some((line, MetricsRow::parse(line)?)));
        match row {
            Some(row) => lines.rows.push(row),
            None if rest.peek().is_none() || line.starts_with(ROW_START) => lines.torn.push(line),
            None => {
                let reason =
                    "not a metrics row; it has to be {\"step\": N, \"time\": T, name: number or null, …}".into();
                return Err(TrackError::Malformed { path: path.to_path_buf(), line: Some(index + 1), reason });
            }
        }
    }
    Ok(lines)
}
