//! How a program reports the error that ended it.

use super::{line::format_error, sinks};
use std::error::Error;

const HINT: &str = "hint:";

/// Prints `error: …`, and its hints on lines of their own, to standard error; the log file gets the same as an `ERROR` line.
///
/// For an `anyhow::Error` pass `error.as_ref()`.
pub fn report_error(error: &(dyn Error + 'static)) {
    let text = error_text(error);
    sinks::write_both(&format!("error: {text}"), &format_error(&text));
}

/// The error and its causes as `outer: inner`, then each `hint: …` line that any of them holds.
///
/// A cause that an outer error quotes already is not repeated.
pub fn error_text(error: &(dyn Error + 'static)) -> String {
    let mut message = String::new();
    let mut hints: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        next = error.source();
        let text = error.to_string();
        let (own_hints, own_message): (Vec<_>, Vec<_>) =
            text.lines().partition(|line| line.trim_start().starts_with(HINT));
        let own_message = own_message.join("\n");
        if !message.contains(&own_message) {
            message = if message.is_empty() { own_message } else { format!("{message}: {own_message}") };
        }
        for hint in own_hints.into_iter().map(|hint| hint.trim_start().to_owned()) {
            if !hints.contains(&hint) {
                hints.push(hint);
            }
        }
    }
    [message].into_iter().chain(hints).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Step {
        text: &'static str,
        source: io::Error,
    }

    #[test]
    fn each_cause_is_told_once_and_hints_come_last() {
        let error = |text| Step { text, source: io::Error::other("disk gone") };
        assert_eq!(error_text(&error("cannot save\nhint: buy a disk")), "cannot save: disk gone\nhint: buy a disk");
        assert_eq!(error_text(&error("cannot save: disk gone")), "cannot save: disk gone");
    }
}
