//! Where a value comes from.

use std::{fmt, path::PathBuf, sync::Arc};

/// A file of the tree, or one word of the command line.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// A YAML file.
    File(Arc<PathBuf>),
    /// An override as typed.
    Word(Arc<str>),
}

/// The place that set a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The file or the word.
    pub source: Source,
    /// The line in the file, from 1; 0 for a word.
    pub line: usize,
}

impl Origin {
    pub(crate) fn file(path: &Arc<PathBuf>, line: usize) -> Self {
        Self { source: Source::File(path.clone()), line }
    }

    pub(crate) fn word(word: &str) -> Self {
        Self { source: Source::Word(word.into()), line: 0 }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::File(path) => write!(f, "{}:{}", path.display(), self.line),
            Source::Word(word) => write!(f, "command line: {word}"),
        }
    }
}
