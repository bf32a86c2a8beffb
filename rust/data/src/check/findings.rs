//! What is wrong with a dataset, one line each.

use crate::error::DataError;
use hlrp_config::Hint;
use std::path::Path;

/// How much of a dataset is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Metadata, tables and the headers of videos.
    Headers,
    /// Also every image is decoded.
    Images,
}

/// A damaged dataset can have one finding per row; this many are reported.
const MAX_FINDINGS: usize = 100;

/// What was found so far.
#[derive(Debug, Default)]
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

    /// The lines, and how many more there are.
    #[must_use]
    pub fn finish(mut self) -> Vec<String> {
        if self.num_left_out > 0 {
            self.found.push(format!("and {} more findings", self.num_left_out));
        }
        self.found
    }
}
