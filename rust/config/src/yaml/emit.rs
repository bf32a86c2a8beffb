//! Trees of values as YAML text that this crate, OmegaConf and PyYAML read back to the same values.

use super::scalar;
use crate::node::{Node, Value};
use crate::python;
use std::fmt::Write;

/// The tree as YAML: sections in blocks, lists of plain values in one line.
pub(crate) fn emit(root: &Node) -> String {
    let mut text = String::new();
    match &root.value {
        Value::Map(map) if map.is_empty() => text.push_str("{}\n"),
        Value::Map(_) => block(root, 0, &mut text),
        _ => {
            text.push_str(&inline(root));
            text.push('\n');
        }
    }
    text
}

fn block(node: &Node, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    for (key, child) in node.as_map().into_iter().flatten() {
        let key = quoted(key);
        match &child.value {
            Value::Map(map) if !map.is_empty() => {
                let _ = writeln!(text, "{indent}{key}:");
                block(child, depth + 1, text);
            }
            _ => {
                let _ = writeln!(text, "{indent}{key}: {}", inline(child));
            }
        }
    }
}

fn inline(node: &Node) -> String {
    match &node.value {
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) if value.is_nan() => ".nan".into(),
        Value::Float(value) if value.is_infinite() => if *value > 0.0 { ".inf" } else { "-.inf" }.into(),
        Value::Float(value) => python::float_repr(*value),
        Value::Str(text) => quoted(text),
        Value::List(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Map(map) => {
            let pairs = map.iter().map(|(key, child)| format!("{}: {}", quoted(key), inline(child)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
    }
}

/// Text as a plain scalar where that reads back as the same text everywhere, else in double quotes.
fn quoted(text: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "_-./+ ()".contains(c);
    let plain = text.starts_with(|c: char| c.is_ascii_alphanumeric() || "_./".contains(c))
        && text.chars().all(harmless)
        && !text.ends_with(' ')
        && text != "---"
        && scalar::plain(text) == Ok(Value::Str(text.to_string()))
        && !matches!(text, "y" | "Y" | "n" | "N")
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && (!text.starts_with('.') || text == "." || text.starts_with("./") || text.starts_with("../"));
    if plain {
        return text.to_string();
    }
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_control() || matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                let _ = write!(quoted, "\\U{:08x}", c as u32);
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
