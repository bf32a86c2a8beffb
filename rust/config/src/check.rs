//! Checks of values that have the right type but cannot be meant.

use crate::schema::Stage;

/// A value that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Dotted path of the key.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
    /// Whose mistake it is.
    pub kind: ProblemKind,
}

/// Whose mistake a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    /// That of the file or word that set the value.
    Wrong,
    /// No file's: only the user can give the value.
    Unset,
    /// No file's: an experiment and a cluster that do not go together.
    Misfit,
}

impl Problem {
    /// A problem with the value at `key`.
    pub fn new(key: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into(), hint: hint.into(), kind: ProblemKind::Wrong }
    }

    /// Says that only the user can give the value.
    #[must_use]
    pub fn unset(mut self) -> Self {
        self.kind = ProblemKind::Unset;
        self
    }

    /// Says that an experiment and a cluster do not go together, each of which is right by itself.
    #[must_use]
    pub fn misfit(mut self) -> Self {
        self.kind = ProblemKind::Misfit;
        self
    }

    /// Puts the key below a section.
    #[must_use]
    pub fn inside(mut self, section: &str) -> Self {
        self.key = format!("{section}.{}", self.key);
        self
    }
}

/// A part of the configuration that knows which of its values make sense.
pub trait Check {
    /// The stage to which a whole configuration of this type belongs; none for a part of one.
    const STAGE: Option<Stage> = None;

    /// # Errors
    /// The first value that cannot be meant; its key is relative to this part.
    fn check(&self) -> Result<(), Problem>;
}
