//! Whether a dataset is damaged: every finding is one line.

pub(crate) mod findings;
pub(crate) mod generic;
pub(crate) mod statistics;

pub use findings::{Depth, Findings, Report};
pub use generic::check_all;

use crate::formats::{self, OpenOptions};
use std::path::Path;

/// Checks the dataset at `root`. Each finding names the file and what is wrong with it; without one, all that the report lists as
/// verified is in order.
#[must_use]
pub fn check(root: &Path, depth: Depth, options: &OpenOptions) -> Report {
    let mut findings = Findings::default();
    match formats::open(root, options) {
        Ok(dataset) => dataset.check(depth, &mut findings),
        Err(error) => findings.error(&error),
    }
    findings.not_verified("statistics of images");
    findings.finish()
}
