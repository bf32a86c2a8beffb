//! The casts of the override grammar: `int(x)`, `float(x)`, `str(x)`, `bool(x)`, element by element in lists and maps.

use crate::node::{Node, Value, fits_64_bits};
use crate::python;

/// Applies the cast `name`.
///
/// # Errors
/// Why the value cannot be cast, or that the function is unknown.
pub(super) fn cast(name: &str, value: Value) -> Result<Value, String> {
    let one: fn(Value) -> Option<Value> = match name {
        "int" => to_int,
        "float" => to_float,
        "str" => to_str,
        "bool" => to_bool,
        "choice" | "range" | "interval" | "glob" | "sort" | "shuffle" | "tag" => {
            return Err(format!("{name}(...) sweeps over several values, and this is one run"));
        }
        _ => return Err(format!("unknown function {name}(...)")),
    };
    each(name, value, one)
}

fn each(name: &str, value: Value, one: fn(Value) -> Option<Value>) -> Result<Value, String> {
    let inside = |node: Node| -> Result<Node, String> {
        let value = each(name, node.value, one)?;
        Ok(Node { value, ..node })
    };
    match value {
        Value::List(items) => Ok(Value::List(items.into_iter().map(inside).collect::<Result<_, _>>()?)),
        Value::Map(map) => {
            let pairs = map.into_iter().map(|(key, node)| Ok((key, inside(node)?)));
            Ok(Value::Map(pairs.collect::<Result<_, String>>()?))
        }
        scalar => one(scalar).ok_or_else(|| format!("{name}(...) cannot cast its argument")),
    }
}

fn to_int(value: Value) -> Option<Value> {
    let whole = match value {
        Value::Int(value) => value,
        Value::Bool(value) => i128::from(value),
        Value::Float(value) if value.is_finite() => value.trunc() as i128,
        Value::Str(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    fits_64_bits(whole).then_some(Value::Int(whole))
}

fn to_float(value: Value) -> Option<Value> {
    Some(Value::Float(match value {
        Value::Float(value) => value,
        Value::Int(value) => value as f64,
        Value::Bool(value) => f64::from(u8::from(value)),
        Value::Str(text) => text.trim().parse().ok()?,
        _ => return None,
    }))
}

fn to_str(value: Value) -> Option<Value> {
    Some(Value::Str(match value {
        Value::Str(text) => text,
        Value::Int(value) => value.to_string(),
        Value::Float(value) => python::float_repr(value),
        Value::Bool(value) => value.to_string(),
        _ => return None,
    }))
}

fn to_bool(value: Value) -> Option<Value> {
    Some(Value::Bool(match value {
        Value::Bool(value) => value,
        Value::Int(value) => value != 0,
        Value::Float(value) => value != 0.0,
        Value::Str(text) if text.eq_ignore_ascii_case("true") => true,
        Value::Str(text) if text.eq_ignore_ascii_case("false") => false,
        _ => return None,
    }))
}
