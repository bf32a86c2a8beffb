//! The one error for an invalid setting, and how any error says what to do about it.

use crate::origin::Origin;
use std::{error::Error, fmt};

/// An error that knows what the user can do about it.
pub trait Hint {
    /// One line without the word `hint:`; none where nothing helps.
    fn hint(&self) -> Option<String>;
}

/// Looks into an error of one type: what a program lists for every type that it can end with.
pub type HintOf = fn(&(dyn Error + 'static)) -> Option<String>;

/// The hint of `error` if it is an `E`.
pub fn hint_of<E: Error + Hint + 'static>(error: &(dyn Error + 'static)) -> Option<String> {
    error.downcast_ref::<E>()?.hint()
}

/// The message of an error and its hint, as a program prints them.
pub fn with_hint(error: &(impl Error + Hint)) -> String {
    match error.hint() {
        Some(hint) => format!("{error}\nhint: {hint}"),
        None => error.to_string(),
    }
}

/// What kind of problem it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    /// A file or folder that does not exist, or cannot be read or written.
    File,
    /// A file that is not YAML, or an argument that is not an override.
    Syntax,
    /// An invalid defaults list or group choice.
    Defaults,
    /// A key that does not exist.
    UnknownKey,
    /// A key that must be set and is not.
    MissingKey,
    /// A value of the wrong type.
    Type,
    /// An invalid value of the right type.
    Value,
    /// A value that only the user can provide.
    Unset,
    /// Two choices that are valid by themselves but not together, such as an experiment and a cluster.
    Misfit,
    /// A reference (`${...}`) that cannot be resolved.
    Interpolation,
}

/// An invalid setting. The message names the key or file and, where known, what set it; [`Hint::hint`] says what to do.
/// A program ends with exit code 2 on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    kind: ProblemKind,
    key: Option<String>,
    message: String,
    origin: Option<Origin>,
    hint: Option<String>,
}

impl Problem {
    /// An invalid value of `key`, a dotted path.
    pub fn new(key: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { key: Some(key.into()), hint: Some(hint.into()), ..Self::of(ProblemKind::Value, message) }
    }

    /// A problem of another kind; the message names what it is about.
    pub fn of(kind: ProblemKind, message: impl Into<String>) -> Self {
        Self { kind, key: None, message: message.into(), origin: None, hint: None }
    }

    /// Says that only the user can provide the value.
    #[must_use]
    pub fn unset(mut self) -> Self {
        self.kind = ProblemKind::Unset;
        self
    }

    /// Says that two choices do not go together, each of which is valid by itself.
    #[must_use]
    pub fn misfit(mut self) -> Self {
        self.kind = ProblemKind::Misfit;
        self
    }

    /// Prefixes the key with a section.
    #[must_use]
    pub fn inside(mut self, section: &str) -> Self {
        self.key = Some(self.key.map_or_else(|| section.to_owned(), |key| format!("{section}.{key}")));
        self
    }

    /// Names what set the value, unless that is known already.
    #[must_use]
    pub fn at(mut self, origin: &Origin) -> Self {
        self.origin.get_or_insert_with(|| origin.clone());
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Names the key. The message of an unknown or missing key names it already.
    pub(crate) fn about(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The key whose value only the user can provide, where that is all that is wrong.
    pub(crate) fn needs(&self) -> Option<&str> {
        self.key().filter(|_| matches!(self.kind, ProblemKind::Unset | ProblemKind::MissingKey))
    }

    /// What kind of problem it is.
    pub fn kind(&self) -> ProblemKind {
        self.kind
    }

    /// The invalid, unknown or missing key, if it is about one.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// What set the invalid value, if known.
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }
}

impl Hint for Problem {
    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}

impl Error for Problem {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_named = matches!(self.kind, ProblemKind::MissingKey | ProblemKind::UnknownKey);
        if let Some(key) = self.key.as_ref().filter(|_| !is_named) {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.message)?;
        match &self.origin {
            Some(origin) => write!(f, " ({origin})"),
            None => Ok(()),
        }
    }
}

/// A checked value, or its problem.
pub type Result<T> = std::result::Result<T, Problem>;

/// A part of the configuration with rules for its values.
pub trait Check {
    /// # Errors
    /// The first invalid value; its key is relative to this part.
    fn check(&self) -> Result<()>;
}
