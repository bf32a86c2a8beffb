//! Where a value comes from.

use std::{fmt, path::PathBuf, sync::Arc};

/// A file of the tree, or an override of the command line.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// A YAML file.
    File(Arc<PathBuf>),
    /// An override as typed.
    Override(Arc<str>),
}

/// What set a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The file or the override.
    pub source: Source,
    /// The line in the file, from 1; 0 for an override.
    pub line: usize,
}

impl Origin {
    pub(crate) fn file(path: &Arc<PathBuf>, line: usize) -> Self {
        Self { source: Source::File(path.clone()), line }
    }

    pub(crate) fn command_line(argument: &str) -> Self {
        Self { source: Source::Override(argument.into()), line: 0 }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::File(path) => write!(f, "{}:{}", path.display(), self.line),
            Source::Override(argument) => write!(f, "command line: {argument}"),
        }
    }
}
