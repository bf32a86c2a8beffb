//! The values of one swept key, and how each is written as an override.

use crate::node::{Node, Value};
use crate::origin::Origin;
use crate::overrides::parser::{split_commas, typed_value};
use crate::overrides::write::{quoted, write_value};
use crate::problem::{Problem, ProblemKind, Result};
use std::collections::BTreeSet;

/// One value of a swept key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    /// As on the command line, after the `=`.
    pub(super) text: String,
}

impl Choice {
    /// The value as a part of a name (letters, digits and `_` only): as many of its parts as have `length` letters together, and at
    /// least one. A number is one part.
    pub(super) fn label(&self, length: usize) -> String {
        let is_number = self.text.parse::<f64>().is_ok();
        let mut label = String::new();
        for part in self.text.split_inclusive(|char: char| !is_number && !char.is_alphanumeric()) {
            let letters: String = part.chars().filter(|char| char.is_alphanumeric() || *char == '_').collect();
            let num_letters = label.chars().chain(letters.trim_end_matches('_').chars()).count();
            if num_letters > length && !label.is_empty() {
                return label.trim_end_matches('_').to_owned();
            }
            label.push_str(&letters);
        }
        label
    }
}

/// The values of a key: the items of a list, or the parts of a text with commas. Anything else is one value.
///
/// # Errors
/// No value, an empty one, or one that is there twice.
pub(super) fn choices(key: &str, node: &Node) -> Result<Vec<Choice>> {
    let texts: Vec<String> = match &node.value {
        Value::List(items) => items.iter().map(write_value).collect(),
        Value::Str(text) => split_commas(text).into_iter().map(|part| as_typed(part.trim(), &node.origin)).collect(),
        _ => vec![write_value(node)],
    };
    if texts.is_empty() || texts.iter().any(String::is_empty) {
        let message = format!("'{key}' has {} value to sweep over", if texts.is_empty() { "no" } else { "an empty" });
        let error = Problem::of(ProblemKind::Value, message).at(&node.origin);
        return Err(error.hint(format!("write {key}: [value, value]")));
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = texts.iter().find(|text| !seen.insert(text.as_str())) {
        let message = format!("'{key}' has the value {twice} twice: two runs would be the same");
        let error = Problem::of(ProblemKind::Value, message).at(&node.origin);
        return Err(error.hint("name each value once; to see what chance does, sweep over seed"));
    }
    Ok(texts.into_iter().map(|text| Choice { text }).collect())
}

/// Text that a user wrote as a value of the command line; in quotes where it cannot be read as one.
fn as_typed(text: &str, origin: &Origin) -> String {
    if typed_value(text, origin).is_some() { text.to_string() } else { quoted(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(node: Value) -> Vec<String> {
        let node = Node::new(node, Origin::command_line("test"));
        choices("key", &node).unwrap_or_default().into_iter().map(|choice| choice.text).collect()
    }

    #[test]
    fn text_with_commas_is_cut_outside_of_quotes_and_brackets() {
        assert_eq!(texts(Value::Str("3e-4, 1e-5".into())), ["3e-4", "1e-5"]);
        assert_eq!(texts(Value::Str("'a,b', [1,2],{x:1}".into())), ["'a,b'", "[1,2]", "{x:1}"]);
        assert_eq!(texts(Value::Str("one".into())), ["one"]);
        assert_eq!(texts(Value::Str("größe (m)".into())), ["\"größe (m)\""]);
    }
}
