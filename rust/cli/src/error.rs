//! Errors of this command that are not invalid settings.

use hlrp_config::Hint;

/// An error with what to do about it; the program ends with exit code 1. An invalid setting is a [`Problem`](hlrp_config::Problem).
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct CommandError {
    message: String,
    hint: String,
}

impl CommandError {
    /// What is wrong, and what to do.
    pub(crate) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}

impl Hint for CommandError {
    fn hint(&self) -> Option<String> {
        Some(self.hint.clone())
    }
}
