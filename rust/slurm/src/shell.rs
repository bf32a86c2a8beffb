//! Text as a shell reads it.

/// Whether a text means itself without quotes.
pub(crate) fn is_plain(text: &str) -> bool {
    text.chars().all(|char| char.is_ascii_alphanumeric() || "_-./=:,@%+".contains(char))
}

/// An argument as a shell reads it back.
pub fn quoted(argument: &str) -> String {
    if !argument.is_empty() && is_plain(argument) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn arguments_are_quoted_where_a_shell_would_take_them_apart() {
        for (argument, shown) in [
            ("--steps=10", "--steps=10"),
            ("", "''"),
            ("[0,1]", "'[0,1]'"),
            ("it's", r"'it'\''s'"),
            ("a b", "'a b'"),
            ("$HOME", "'$HOME'"),
        ] {
            assert_eq!(quoted(argument), shown);
        }
    }
}
