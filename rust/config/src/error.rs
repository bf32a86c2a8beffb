//! The one error of this crate: what is wrong, where it was set, and what to do.

use crate::{Origin, Problem, ProblemKind};
use std::fmt;

/// What kind of mistake a [`ConfigError`] reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// A file or folder that is not there, or cannot be read or written.
    File,
    /// A file that is not YAML, or a word that is not an override.
    Syntax,
    /// A defaults list or a group choice that does not work out.
    Defaults,
    /// A key that does not exist.
    UnknownKey,
    /// A key that must be set and is not.
    MissingKey,
    /// A value of the wrong type.
    Type,
    /// A value of the right type that cannot be meant.
    Value,
    /// A reference (`${...}`) that cannot be resolved.
    Interpolation,
}

/// A mistake in the configuration. Its text names the key or file, the place that set it, and in a `hint:` line what to
/// do. Programs end with exit code 2 on it.
#[derive(Debug, Clone, thiserror::Error)]
pub struct ConfigError {
    kind: ErrorKind,
    message: String,
    /// The key whose value is wrong, where it is one value.
    key: Option<String>,
    origin: Option<Origin>,
    hint: Option<String>,
    needs_key: bool,
    is_misfit: bool,
}

impl ConfigError {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), key: None, origin: None, hint: None, needs_key: false, is_misfit: false }
    }

    /// Names the place that set the offending value.
    pub(crate) fn at(mut self, origin: &Origin) -> Self {
        self.origin.get_or_insert_with(|| origin.clone());
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Names the key whose value only the user can give.
    pub(crate) fn needing(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self.needs_key = true;
        self
    }

    /// The key whose value only the user can give, where that is all that is wrong.
    pub(crate) fn needs(&self) -> Option<&str> {
        self.key().filter(|_| self.needs_key)
    }

    /// Whether an experiment and a cluster do not go together, each of which is right by itself.
    pub fn is_misfit(&self) -> bool {
        self.is_misfit
    }

    /// What kind of mistake it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The key whose value is wrong, where it is one value.
    pub(crate) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The place that set the offending value, where one is known.
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        let mut error = Self::new(ErrorKind::Value, format!("{}: {}", problem.key, problem.message));
        error.is_misfit = problem.kind == ProblemKind::Misfit;
        error.needs_key = problem.kind == ProblemKind::Unset;
        error.key = Some(problem.key);
        error.hint(problem.hint)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(origin) = &self.origin {
            write!(f, " ({origin})")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

pub(crate) type Result<T> = std::result::Result<T, ConfigError>;
