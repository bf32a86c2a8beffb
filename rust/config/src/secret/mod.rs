//! Secrets are kept out of everything that is printed or written: whatever does so calls [`redact`] first.
//!
//! A value is a secret because of its name (`name`), because of its form in a text (`forms`), or because this process has it under the name of
//! a secret (`known`).

mod forms;
mod known;
mod name;
mod tree;

pub use name::is_secret_name;

/// What is written in place of a secret.
pub const REDACTED: &str = "***";

/// The text with `***` in place of every secret.
pub fn redact(text: &str) -> String {
    forms::redact(&known::redact(text))
}

/// Whether a text contains a secret.
pub fn has_secret(text: &str) -> bool {
    redact(text) != text
}

/// The value under a name with `***` in place of secrets.
pub fn redact_value(name: &str, value: &str) -> String {
    if is_secret_name(name) { REDACTED.to_owned() } else { redact(value) }
}

/// One argument. All after the first `=` is its value.
fn redact_argument(argument: &str) -> String {
    match argument.split_once('=') {
        Some((name, value)) if is_secret_name(name) && !name.contains(char::is_whitespace) && !is_harmless(value) => {
            format!("{name}={}", hidden(value))
        }
        _ => redact(argument),
    }
}

/// The arguments of a command line with `***` in place of every secret: of `key=x`, `--key=x` and `--key x`.
pub fn redact_arguments(arguments: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut value_follows = false;
    let redact_one = |argument: String| {
        if std::mem::take(&mut value_follows) {
            return REDACTED.to_owned();
        }
        value_follows = argument.starts_with("--") && !argument.contains('=') && is_secret_name(&argument);
        redact_argument(&argument)
    };
    arguments.into_iter().map(redact_one).collect()
}

/// What is written in place of a value, in the same quotes.
fn hidden(value: &str) -> String {
    match value.chars().next().filter(|first| ['"', '\''].contains(first)) {
        Some(quote) => format!("{quote}{REDACTED}{quote}"),
        None => REDACTED.to_owned(),
    }
}

/// Whether a value reveals nothing, whatever its name: `null`, a flag, a reference.
fn is_harmless(value: &str) -> bool {
    let value = value.trim_matches(['"', '\'']);
    value.starts_with("${") || ["null", "true", "false", "None", REDACTED].contains(&value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remembered_value_is_found_in_any_text() {
        known::remember("a b'c,d");
        assert_eq!(redact("cannot read 'a b'c,d' at all"), "cannot read '***' at all");
        known::remember("short");
        assert_eq!(redact("a short text"), "a short text", "shorter values occur by chance");
    }

    #[test]
    fn options_keep_their_names() {
        let arguments = ["hlrp", "--token", "x", "--api-key=y", "a.password='q w'", "model.token_decoder.depth=2"];
        let shown = ["hlrp", "--token", "***", "--api-key=***", "a.password='***'", "model.token_decoder.depth=2"];
        assert_eq!(redact_arguments(arguments.map(String::from)), shown);
    }
}
