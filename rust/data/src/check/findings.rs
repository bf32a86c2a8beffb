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
    verified: Vec<String>,
    not_verified: Vec<String>,
}

impl Findings {
    /// Adds what is wrong with a file or folder.
    pub fn add(&mut self, path: &Path, what: &str) {
        self.line(format!("{}: {what}", path.display()));
    }

    /// Notes what was looked at.
    pub fn verified(&mut self, what: impl Into<String>) {
        self.verified.push(what.into());
    }

    /// Notes what was not looked at.
    pub fn not_verified(&mut self, what: impl Into<String>) {
        self.not_verified.push(what.into());
    }

    /// Adds an error and its hint.
    pub fn error(&mut self, error: &DataError) {
        let hint = error.hint().map(|hint| format!("; hint: {hint}")).unwrap_or_default();
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

    /// What was found, and what was looked at.
    #[must_use]
    pub fn finish(mut self) -> Report {
        if self.num_left_out > 0 {
            self.found.push(format!("and {} more findings", self.num_left_out));
        }
        Report { findings: self.found, verified: self.verified, not_verified: self.not_verified }
    }
}

/// What a check has to say.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong, one line each.
    pub findings: Vec<String>,
    /// What was looked at.
    pub verified: Vec<String>,
    /// What was not looked at.
    pub not_verified: Vec<String>,
}
