//! How a program reports the error that ended it.

use super::{line::format_error, output};
use hlrp_config::HintOf;
use std::error::Error;

/// Prints `error: …`, and hints on lines of their own, to standard error; the log file gets the same as an `ERROR` line.
/// `hints` lists the error types that a program knows hints of.
///
/// For an `anyhow::Error` pass `error.as_ref()`.
pub fn report_error(error: &(dyn Error + 'static), hints: &[HintOf]) {
    let text = error_text(error, hints);
    output::write_both(&format!("error: {text}"), &format_error(&text));
}

/// The error and its causes as `outer: inner`, then a line `hint: …` for each cause that has one.
///
/// A cause that an outer error quotes already is not repeated.
pub fn error_text(error: &(dyn Error + 'static), hints: &[HintOf]) -> String {
    let (message, hints) = message_and_hints(error, hints);
    [message].into_iter().chain(hints.iter().map(|hint| format!("hint: {hint}"))).collect::<Vec<_>>().join("\n")
}

/// The two parts of [`error_text`]: the error with its causes, and the hints, each once.
pub fn message_and_hints(error: &(dyn Error + 'static), hints: &[HintOf]) -> (String, Vec<String>) {
    let mut message = String::new();
    let mut found: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        next = cause.source();
        let own = cause.to_string();
        if !message.contains(&own) {
            message = if message.is_empty() { own } else { format!("{message}: {own}") };
        }
        let hint = hints.iter().find_map(|hint_of| hint_of(cause));
        found.extend(hint.filter(|hint| !found.contains(hint)));
    }
    (message, found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hlrp_config::{Hint, hint_of};
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Step {
        text: &'static str,
        source: io::Error,
    }

    impl Hint for Step {
        fn hint(&self) -> Option<String> {
            Some("buy a disk".to_owned())
        }
    }

    #[test]
    fn each_cause_is_reported_once_and_hints_come_last() {
        let text = |text| error_text(&Step { text, source: io::Error::other("disk gone") }, &[hint_of::<Step>]);
        assert_eq!(text("cannot save"), "cannot save: disk gone\nhint: buy a disk");
        assert_eq!(text("cannot save: disk gone"), "cannot save: disk gone\nhint: buy a disk");
    }
}
