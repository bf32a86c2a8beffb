//! Scalars as a table: `metrics.csv`, one row for each value.

use super::{Sink, SinkSetup};
use crate::{Result, TrackError, run::RunStatus};
use serde_json::Value;
use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::PathBuf,
};

const FILE_NAME: &str = "metrics.csv";

/// Writes rows of step, name and value.
struct CsvSink {
    path: PathBuf,
    file: BufWriter<File>,
    separator: String,
}

/// The sink of the run that `setup` describes, if `options` is a separator. A run that resumes keeps the rows up to its step.
pub(super) fn open(setup: &SinkSetup<'_>, options: &Value) -> Result<Option<Box<dyn Sink>>> {
    let Some(separator) = options.as_str().map(str::to_owned) else { return Ok(None) };
    let path = setup.run_dir.join(FILE_NAME);
    let former =
        if path.exists() { fs::read_to_string(&path).map_err(TrackError::io("read", &path))? } else { String::new() };
    let is_kept = |row: &&str| {
        let step = row.split(&separator).next().and_then(|step| step.parse().ok());
        step.is_some_and(|step: u64| step <= setup.step)
    };
    let kept: Vec<&str> = former.lines().filter(is_kept).collect();
    let file = File::create(&path).map_err(TrackError::io("create", &path))?;
    let mut sink = CsvSink { path, file: BufWriter::new(file), separator };
    sink.row(["step", "name", "value"])?;
    kept.into_iter().try_for_each(|row| sink.line(row))?;
    Ok(Some(Box::new(sink)))
}

impl CsvSink {
    fn row(&mut self, cells: [&str; 3]) -> Result<()> {
        self.line(&cells.join(&self.separator))
    }

    fn line(&mut self, line: &str) -> Result<()> {
        writeln!(self.file, "{line}").map_err(TrackError::io("append to", &self.path))
    }
}

impl Sink for CsvSink {
    fn scalars(&mut self, step: u64, scalars: &[(String, f64)]) -> Result<()> {
        scalars.iter().try_for_each(|(name, value)| self.row([&step.to_string(), name, &value.to_string()]))
    }

    fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(TrackError::io("flush", &self.path))
    }

    fn finish(&mut self, _outcome: &RunStatus) -> Result<()> {
        self.flush()
    }
}
