//! A mistake of the user that only a command can see.

/// What the user has to change; the program ends with the exit code of a mistake in the configuration.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Mistake(String);

impl Mistake {
    /// What is wrong, with the key or file, and what to do.
    pub(crate) fn new(message: impl Into<String>, hint: impl AsRef<str>) -> Self {
        Self(format!("{}\nhint: {}", message.into(), hint.as_ref()))
    }
}
