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

/// A report in the making.
#[derive(Debug, Default)]
pub struct Findings {
    report: Report,
    num_left_out: usize,
}

impl Findings {
    /// Adds what is wrong with a file or folder.
    pub fn add(&mut self, path: &Path, what: &str) {
        self.line(format!("{}: {what}", path.display()));
    }

    /// Notes what may be meant, and is no finding.
    pub fn note(&mut self, what: impl Into<String>) {
        self.report.notes.push(what.into());
    }

    /// Notes what was verified.
    pub fn verified(&mut self, what: impl Into<String>) {
        self.report.verified.push(what.into());
    }

    /// Notes what was not verified.
    pub fn not_verified(&mut self, what: impl Into<String>) {
        self.report.not_verified.push(what.into());
    }

    /// Adds an error and its hint.
    pub fn error(&mut self, error: &DataError) {
        let hint = error.hint().map(|hint| format!("; hint: {hint}")).unwrap_or_default();
        self.line(format!("{error}{hint}"));
    }

    /// Adds a line, once.
    pub(crate) fn line(&mut self, line: String) {
        let findings = &mut self.report.findings;
        if findings.contains(&line) {
            return;
        }
        if findings.len() < MAX_FINDINGS {
            findings.push(line);
        } else {
            self.num_left_out += 1;
        }
    }

    /// The report, with the number of findings that are left out.
    #[must_use]
    pub fn finish(mut self) -> Report {
        if self.num_left_out > 0 {
            self.report.findings.push(format!("and {} more findings", self.num_left_out));
        }
        self.report
    }
}

/// The result of a check.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong, one line each.
    pub findings: Vec<String>,
    /// What may be meant.
    pub notes: Vec<String>,
    /// What was verified.
    pub verified: Vec<String>,
    /// What was not verified.
    pub not_verified: Vec<String>,
}
