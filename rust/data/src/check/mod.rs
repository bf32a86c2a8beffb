//! Whether a dataset is damaged: every finding is one line.

pub(crate) mod findings;
pub(crate) mod generic;
pub(crate) mod statistics;

pub use findings::{Depth, Findings};
pub use generic::check_all;

use crate::formats::{self, TableCache};
use std::{path::Path, sync::Arc};

/// Looks through the dataset at `root`. Each finding names the file and what is wrong with it; none means that all is well.
#[must_use]
pub fn check(root: &Path, depth: Depth, tables: &Arc<TableCache>) -> Vec<String> {
    let mut findings = Findings::default();
    match formats::open(root, tables) {
        Ok(dataset) => dataset.check(depth, &mut findings),
        Err(error) => findings.error(&error),
    }
    findings.finish()
}
