//! Overrides of the command line: `key=value`, `+key=value`, `++key=value`, `~key`, `group=option`, `group@package=option`.
//!
//! The grammar is Hydra 1.3's, with one addition: a value may hold further `=`.

mod cast;
mod lexer;
pub(crate) mod parser;
pub(crate) mod write;

use crate::node::Value;
use crate::origin::Origin;

/// The key or group that an override changes.
pub fn override_key(argument: &str) -> &str {
    argument.trim_start_matches(['+', '~']).split(['=', '@']).next().unwrap_or_default()
}

/// What an override does with its key.
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

/// One override.
#[derive(Debug, Clone)]
pub(crate) struct Override {
    pub(crate) action: Action,
    /// A dotted path, or a group with slashes.
    pub(crate) key: String,
    /// After `@`.
    pub(crate) package: Option<String>,
    /// None only for `~key`.
    pub(crate) value: Option<Value>,
    /// As typed.
    pub(crate) text: String,
}

impl Override {
    pub(crate) fn origin(&self) -> Origin {
        Origin::command_line(&self.text)
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
    use super::override_key;

    #[test]
    fn the_key_of_an_override_is_between_its_signs() {
        for argument in ["a.b=1", "+a.b=1", "++a.b=x=y", "~a.b", "~a.b=1", "a.b@c=1"] {
            assert_eq!(override_key(argument), "a.b", "{argument}");
        }
    }
}
