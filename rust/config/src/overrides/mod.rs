//! Words of the command line: `key=value`, `+key=value`, `++key=value`, `~key`, `group=option`, `group@package=option`.
//!
//! The grammar is Hydra 1.3's, with one addition: a value may hold further `=`.

mod cast;
mod lexer;
mod parser;

pub(crate) use parser::{parse, split_commas, typed_value};

use crate::{Origin, Value};

/// The key or group that a word changes.
pub fn word_key(word: &str) -> &str {
    word.trim_start_matches(['+', '~']).split(['=', '@']).next().unwrap_or_default()
}

/// What a word does with its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// `key=value`: the key must exist.
    Change,
    /// `+key=value`: the key must not exist.
    Add,
    /// `++key=value`: either.
    Force,
    /// `~key`, `~key=value`: the key goes.
    Delete,
}

/// One word.
#[derive(Debug, Clone)]
pub(crate) struct Override {
    pub(crate) action: Action,
    /// A dotted path, or a group with slashes.
    pub(crate) key: String,
    /// After `@`.
    pub(crate) package: Option<String>,
    /// None only for `~key`.
    pub(crate) value: Option<Value>,
    /// The word as typed.
    pub(crate) word: String,
}

impl Override {
    pub(crate) fn origin(&self) -> Origin {
        Origin::word(&self.word)
    }

    /// `group@package`, the name of a choice in the defaults tree.
    pub(crate) fn choice_key(&self) -> String {
        match &self.package {
            Some(package) => format!("{}@{package}", self.key),
            None => self.key.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::word_key;

    #[test]
    fn the_key_of_a_word_lies_between_its_signs() {
        for word in ["a.b=1", "+a.b=1", "++a.b=x=y", "~a.b", "~a.b=1", "a.b@c=1"] {
            assert_eq!(word_key(word), "a.b", "{word}");
        }
    }
}
