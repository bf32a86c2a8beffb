//! Whether a dataset is damaged: every finding is one line.

mod features;
mod images;
mod statistics;

pub(crate) use features::check_features;
pub(crate) use images::{check_images, decode_all};
pub(crate) use statistics::{Statistics, compare};

use crate::error::DataError;
use crate::formats::{self, TableCache};
use hlrp_config::Hint;
use std::{path::Path, sync::Arc};

/// How much of a dataset is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Metadata, tables and the headers of videos.
    Headers,
    /// Also every image is decoded.
    Images,
}

/// Looks through the dataset at `root`. Each finding names the file and what is wrong with it; none means that all is well.
#[must_use]
pub fn check(root: &Path, depth: Depth, tables: &Arc<TableCache>) -> Vec<String> {
    let mut findings = Findings { found: Vec::new(), num_left_out: 0 };
    match formats::open(root, tables) {
        Ok(dataset) => dataset.check(depth, &mut findings),
        Err(error) => findings.error(&error),
    }
    findings.finish()
}

/// A damaged dataset can have one finding per row; this many are reported.
const MAX_FINDINGS: usize = 100;

/// What was found so far.
pub struct Findings {
    found: Vec<String>,
    num_left_out: usize,
}

impl Findings {
    /// Adds what is wrong with a file or folder.
    pub fn add(&mut self, path: &Path, what: &str) {
        self.line(format!("{}: {what}", path.display()));
    }

    /// Adds an error and its hint.
    pub fn error(&mut self, error: &DataError) {
        let hint = error.hint().map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
        self.line(format!("{error}{hint}"));
    }

    /// Adds a line, once.
    pub(crate) fn line(&mut self, line: String) {
        if self.found.contains(&line) {
            return;
        }
        if self.found.len() < MAX_FINDINGS {
            self.found.push(line);
        } else {
            self.num_left_out += 1;
        }
    }

    fn finish(mut self) -> Vec<String> {
        if self.num_left_out > 0 {
            self.found.push(format!("and {} more findings", self.num_left_out));
        }
        self.found
    }
}
