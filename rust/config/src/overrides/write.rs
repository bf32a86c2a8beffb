//! Writing values such that an override reads them back.

use super::parser::typed_value;
use crate::interpolation::parse::escape;
use crate::node::{Node, Value};
use crate::origin::Origin;
use crate::python;
use std::path::Path;

/// A path such that the override `key=path` reads it back.
pub fn write_path(path: &Path) -> String {
    text_value(&path.display().to_string())
}

/// A value such that the override `key=value` reads it back.
pub fn write_value(node: &Node) -> String {
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

fn text_value(text: &str) -> String {
    let text = escape(text);
    let reads_back = typed_value(&text, &Origin::command_line(&text)) == Some(Value::Str(text.clone()));
    if reads_back && !text.is_empty() { text } else { quoted(&text) }
}

/// Inside a list or map, where a comma or bracket would end the text.
fn item_value(node: &Node) -> String {
    let is_plain = |text: &str| text.chars().all(|char| char.is_ascii_alphanumeric() || "_-./".contains(char));
    match &node.value {
        Value::Str(text) if !is_plain(text) => quoted(&escape(text)),
        _ => write_value(node),
    }
}

/// Text in quotes: quotes inside get a backslash, and backslashes before a quote are doubled.
pub(crate) fn quoted(text: &str) -> String {
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

    #[test]
    fn every_path_reads_back_as_it_is() {
        let origin = Origin::command_line("test");
        for path in ["./runs/a-1_b.c", "/a place", "/it's", "/a,b", "/[x]", "/a=b", "1", "null", "C:\\", " x"] {
            let text = write_path(Path::new(path));
            assert_eq!(typed_value(&text, &origin), Some(Value::Str(path.into())), "{text}");
        }
        assert_eq!(write_path(Path::new("./runs/a-1_b.c")), "./runs/a-1_b.c");
    }

    #[test]
    fn every_value_reads_back_as_it_is() {
        let items = ["a", "", "1e-4", "true", "a, b", "it's \"quoted\"", "C:\\", "\\\"", "${x}", "é", "[1", " x "];
        let strings = items.map(|text| Value::Str(text.into()));
        let origin = Origin::command_line("test");
        let list = strings.iter().map(|value| Node::new(value.clone(), origin.clone())).collect();
        let numbers = [Value::Null, Value::Bool(true), Value::Int(-7), Value::Float(3e-4), Value::Float(2.0)];
        for value in strings.clone().into_iter().chain(numbers).chain([Value::List(list)]) {
            let text = write_value(&Node::new(value.clone(), origin.clone()));
            let escaped = |value: Value| match value {
                Value::Str(text) => Value::Str(escape(&text)),
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
