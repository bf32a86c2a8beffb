//! Types of plain YAML scalars as OmegaConf reads them: YAML 1.1, but `1e-4` is a float and dates are text.

use crate::node::{Value, fits_64_bits};
use regex_lite::Regex;
use std::sync::LazyLock;

#[allow(clippy::unwrap_used)] // constant patterns
fn pattern(text: &str) -> Regex {
    Regex::new(text).unwrap()
}

static INT: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]+|0|[1-9][0-9_]*(?::[0-5]?[0-9])*)$"));

static FLOAT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(concat!(
        r"^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?",
        r"|[-+]?[0-9]+(?:_[0-9]+)*[eE][-+]?[0-9]+",
        r"|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?",
        r"|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*",
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ))
});

/// The value of a plain (unquoted) scalar.
///
/// # Errors
/// A whole number that does not fit 64 bits.
pub(crate) fn plain(text: &str) -> Result<Value, String> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Value::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Value::Bool(false),
        _ if !text.starts_with(['-', '+', '.', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) => {
            Value::Str(text.to_string())
        }
        _ if FLOAT.is_match(text) => Value::Float(float(text)),
        _ if INT.is_match(text) => {
            Value::Int(int(text).ok_or_else(|| format!("the number {text} does not fit 64 bits"))?)
        }
        _ => Value::Str(text.to_string()),
    })
}

/// The value of a scalar whose tag names its type, as PyYAML constructs it.
///
/// # Errors
/// Text that is not of this type.
pub(crate) fn tagged(tag: &str, text: &str) -> Result<Value, String> {
    let wrong = || format!("'{text}' is not a value of the tag !!{tag}");
    match (tag, plain(text)?) {
        ("null", _) => Ok(Value::Null),
        ("int", value @ Value::Int(_)) | ("bool", value @ Value::Bool(_)) | ("float", value @ Value::Float(_)) => {
            Ok(value)
        }
        ("float", Value::Int(value)) => Ok(Value::Float(value as f64)),
        _ => Err(wrong()),
    }
}

fn sign_of(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

fn int(text: &str) -> Option<i128> {
    let digits = text.replace('_', "");
    let (negative, digits) = sign_of(&digits);
    let magnitude = if let Some(binary) = digits.strip_prefix("0b") {
        i128::from_str_radix(binary, 2).ok()?
    } else if let Some(hex) = digits.strip_prefix("0x") {
        i128::from_str_radix(hex, 16).ok()?
    } else if digits.len() > 1 && digits.starts_with('0') {
        i128::from_str_radix(digits, 8).ok()?
    } else {
        digits.split(':').try_fold(0i128, |sum, part| sum.checked_mul(60)?.checked_add(part.parse().ok()?))?
    };
    Some(if negative { -magnitude } else { magnitude }).filter(|value| fits_64_bits(*value))
}

fn float(text: &str) -> f64 {
    let digits = text.replace('_', "").to_lowercase();
    let (negative, digits) = sign_of(&digits);
    let magnitude = match digits {
        ".inf" => f64::INFINITY,
        ".nan" => f64::NAN,
        _ => digits.split(':').fold(0.0, |sum, part| sum * 60.0 + part.parse().unwrap_or(f64::NAN)),
    };
    if negative { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_have_the_types_that_omegaconf_gives() {
        use Value::{Bool, Float, Int, Null, Str};
        let text = |text: &str| Str(text.to_string());
        let cases = [
            ("1e-4", Float(1e-4)),
            ("1.", Float(1.0)),
            (".5", Float(0.5)),
            ("1_000", Int(1000)),
            ("0x10", Int(16)),
            ("010", Int(8)),
            ("08", text("08")),
            ("08:00:00", text("08:00:00")),
            ("15:00:00", Int(54000)),
            ("-3", Int(-3)),
            ("off", Bool(false)),
            ("y", text("y")),
            ("~", Null),
            ("2026-01-02", text("2026-01-02")),
            ("-.inf", Float(f64::NEG_INFINITY)),
            ("0b101", Int(5)),
            ("1.2.3", text("1.2.3")),
            ("e5", text("e5")),
        ];
        let too_large = ["18446744073709551616", "-9223372036854775809", "0xfffffffffffffffff"];
        assert!(too_large.iter().all(|text| plain(text).is_err()), "no reader has them as numbers");
        assert_eq!(plain("18446744073709551615"), Ok(Int(u64::MAX.into())));
        for (plain_text, value) in cases {
            assert_eq!(plain(plain_text), Ok(value), "{plain_text}");
        }
    }
}
