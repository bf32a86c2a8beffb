//! Whether a dataset is whole: every finding is one line.

mod counts;
mod pictures;
mod rows;
mod statistics;

use crate::{
    DataError,
    lerobot::{Dataset, TableCache},
};
use std::{path::Path, sync::Arc};

/// How much of a dataset is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Metadata, tables and the headers of videos.
    Headers,
    /// Also every picture is decoded.
    Pictures,
}

/// Looks through the dataset at `root`. Each finding names the file and what is wrong with it; none means all is well.
#[must_use]
pub fn check(root: &Path, depth: Depth, cache: &Arc<TableCache>) -> Vec<String> {
    let mut findings = Findings { found: Vec::new(), left_out: 0 };
    match Dataset::open(root, cache) {
        Ok(dataset) => {
            let dataset = Arc::new(dataset);
            counts::check(&dataset, &mut findings);
            rows::check(&dataset, &mut findings);
            pictures::check(&dataset, depth, &mut findings);
        }
        Err(error) => findings.error(&error),
    }
    findings.finish()
}

/// A damaged dataset can have one finding per row; this many are told.
const MAX_FINDINGS: usize = 100;

/// What was found so far.
struct Findings {
    found: Vec<String>,
    left_out: usize,
}

impl Findings {
    fn add(&mut self, path: &Path, what: &str) {
        self.line(format!("{}: {what}", path.display()));
    }

    fn error(&mut self, error: &DataError) {
        let line =
            error.to_string().replace("\nhint: ", " (hint: ") + if error.to_string().contains('\n') { ")" } else { "" };
        self.line(line);
    }

    fn line(&mut self, line: String) {
        if self.found.contains(&line) {
            return;
        }
        if self.found.len() < MAX_FINDINGS {
            self.found.push(line);
        } else {
            self.left_out += 1;
        }
    }

    fn finish(mut self) -> Vec<String> {
        if self.left_out > 0 {
            self.found.push(format!("and {} more findings", self.left_out));
        }
        self.found
    }
}
