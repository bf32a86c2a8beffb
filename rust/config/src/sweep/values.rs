//! The values of one swept key, and how each is written in a word of the command line.

use crate::{
    Node, Origin, Problem, ProblemKind, Value, interpolation,
    overrides::{split_commas, typed_value},
    problem::Result,
    python,
};
use std::path::Path;

/// One value of a swept key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    /// As on the command line, behind the `=`.
    pub(super) text: String,
}

impl Choice {
    /// The value as a part of a name, letters, digits and `_` alone: as many of its words as have `length` letters together, and at
    /// least one. A number is one word.
    pub(super) fn label(&self, length: usize) -> String {
        let is_number = self.text.parse::<f64>().is_ok();
        let mut label = String::new();
        for word in self.text.split_inclusive(|char: char| !is_number && !char.is_alphanumeric()) {
            let letters: String = word.chars().filter(|char| char.is_alphanumeric() || *char == '_').collect();
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
/// No value, or an empty one.
pub(super) fn choices(key: &str, node: &Node) -> Result<Vec<Choice>> {
    let texts: Vec<String> = match &node.value {
        Value::List(items) => items.iter().map(word_value).collect(),
        Value::Str(text) => split_commas(text).into_iter().map(|part| as_typed(part.trim(), &node.origin)).collect(),
        _ => vec![word_value(node)],
    };
    if texts.is_empty() || texts.iter().any(String::is_empty) {
        let message = format!("'{key}' has {} value to sweep over", if texts.is_empty() { "no" } else { "an empty" });
        let error = Problem::of(ProblemKind::Value, message).at(&node.origin);
        return Err(error.hint(format!("write {key}: [value, value]")));
    }
    Ok(texts.into_iter().map(|text| Choice { text }).collect())
}

/// Text that a user wrote as a value of the command line; in quotes where it cannot be read as one.
fn as_typed(text: &str, origin: &Origin) -> String {
    if typed_value(text, origin).is_some() { text.to_string() } else { quoted(text) }
}

/// A path such that a word of the command line, `key=path`, gives it.
pub fn path_to_word(path: &Path) -> String {
    text_value(&path.display().to_string())
}

fn text_value(text: &str) -> String {
    let text = interpolation::escape(text);
    let reads_back = typed_value(&text, &Origin::word(&text)) == Some(Value::Str(text.clone()));
    if reads_back && !text.is_empty() { text } else { quoted(&text) }
}

/// A value such that the command line reads it back.
pub(crate) fn word_value(node: &Node) -> String {
    match &node.value {
        Value::Float(value) => short_float(*value),
        Value::Str(text) => text_value(text),
        Value::List(items) => format!("[{}]", items.iter().map(item_value).collect::<Vec<_>>().join(",")),
        Value::Map(map) => {
            let pairs = map.iter().map(|(key, child)| format!("{key}:{}", item_value(child)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
        }
        Value::Null | Value::Bool(_) | Value::Int(_) => node.summary(),
    }
}

/// Inside a list or map, where a comma or bracket would end the text.
fn item_value(node: &Node) -> String {
    let is_plain = |text: &str| text.chars().all(|char| char.is_ascii_alphanumeric() || "_-./".contains(char));
    match &node.value {
        Value::Str(text) if !is_plain(text) => quoted(&interpolation::escape(text)),
        _ => word_value(node),
    }
}

/// Text in quotes: quotes inside get a backslash, and backslashes before a quote are doubled.
fn quoted(text: &str) -> String {
    let mut result = String::from('"');
    let mut num_backslashes = 0;
    for char in text.chars().chain(['"']) {
        if char == '"' {
            result.extend(std::iter::repeat_n('\\', num_backslashes));
        }
        num_backslashes = if char == '\\' { num_backslashes + 1 } else { 0 };
        if char == '"' {
            result.push('\\');
        }
        result.push(char);
    }
    // The last quote ends the text and needs no backslash of its own.
    result.truncate(result.len() - 2);
    result.push('"');
    result
}

/// The shorter of `0.0003` and `3e-4`.
fn short_float(value: f64) -> String {
    let [plain, scientific] = [python::float_repr(value), format!("{value:e}")];
    if value.is_finite() && scientific.len() < plain.len() { scientific } else { plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(node: Value) -> Vec<String> {
        let node = Node::new(node, Origin::word("test"));
        choices("key", &node).unwrap_or_default().into_iter().map(|choice| choice.text).collect()
    }

    #[test]
    fn text_with_commas_is_cut_outside_of_quotes_and_brackets() {
        assert_eq!(texts(Value::Str("3e-4, 1e-5".into())), ["3e-4", "1e-5"]);
        assert_eq!(texts(Value::Str("'a,b', [1,2],{x:1}".into())), ["'a,b'", "[1,2]", "{x:1}"]);
        assert_eq!(texts(Value::Str("one".into())), ["one"]);
        assert_eq!(texts(Value::Str("größe (m)".into())), ["\"größe (m)\""]);
    }

    #[test]
    fn every_path_reads_back_as_it_is() {
        let origin = Origin::word("test");
        for path in ["./runs/a-1_b.c", "/a place", "/it's", "/a,b", "/[x]", "/a=b", "1", "null", "C:\\", " x"] {
            let text = path_to_word(Path::new(path));
            assert_eq!(typed_value(&text, &origin), Some(Value::Str(path.into())), "{text}");
        }
        assert_eq!(path_to_word(Path::new("./runs/a-1_b.c")), "./runs/a-1_b.c");
    }

    #[test]
    fn every_value_reads_back_as_it_is() {
        let items = ["a", "", "1e-4", "true", "a, b", "it's \"quoted\"", "C:\\", "\\\"", "${x}", "é", "[1", " x "];
        let strings = items.map(|text| Value::Str(text.into()));
        let origin = Origin::word("test");
        let list = strings.iter().map(|value| Node::new(value.clone(), origin.clone())).collect();
        let numbers = [Value::Null, Value::Bool(true), Value::Int(-7), Value::Float(3e-4), Value::Float(2.0)];
        for value in strings.clone().into_iter().chain(numbers).chain([Value::List(list)]) {
            let text = word_value(&Node::new(value.clone(), origin.clone()));
            let escaped = |value: Value| match value {
                Value::Str(text) => Value::Str(interpolation::escape(&text)),
                other => other,
            };
            let expected = match value {
                Value::List(items) => Value::List(
                    items.into_iter().map(|node| Node { value: escaped(node.value.clone()), ..node }).collect(),
                ),
                other => escaped(other),
            };
            assert_eq!(typed_value(&text, &origin), Some(expected), "{text}");
        }
    }
}
