//! Text of log lines and of numbers in them.

use std::fmt::{self, Write};
use tracing::{
    Event, Level,
    field::{Field, Visit},
};

/// `[YYYY-MM-DD HH:MM:SS][name][LEVEL] - message key=value …` without a line end; `rank 2: ` comes before the message on other ranks.
pub(super) fn format_event(event: &Event<'_>, rank: usize) -> String {
    let mut fields = Fields::default();
    event.record(&mut fields);
    let name = logger_name(event.metadata().target());
    let rank = if rank == 0 { String::new() } else { format!("rank {rank}: ") };
    let now = now();
    let Fields { message, others } = fields;
    format!("[{now}][{name}][{}] - {rank}{message}{others}", event.metadata().level())
}

/// `YYYY-MM-DD HH:MM:SS` in local time.
fn now() -> impl fmt::Display {
    jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// The line that reports an error which ended the program.
pub(super) fn format_error(text: &str) -> String {
    format!("[{}][main][ERROR] - {text}", now())
}

/// `hlrp_train::checkpoint` → `train.checkpoint`.
fn logger_name(target: &str) -> String {
    target.strip_prefix("hlrp_").unwrap_or(target).replace("::", ".")
}

/// `line` with the colour of its level, for a terminal.
pub(super) fn colour(line: &str, level: &Level) -> String {
    let code = match *level {
        Level::ERROR => "31",
        Level::WARN => "33",
        Level::INFO => return line.to_owned(),
        _ => "2",
    };
    format!("\u{1b}[{code}m{line}\u{1b}[0m")
}

/// A metric's value as people read it: learning rates as `1.00e-04`, whole numbers whole, the rest with four decimals, very small or
/// large ones with an exponent.
pub fn format_value(name: &str, value: f64) -> String {
    let is_rate = name == "lr" || name.ends_with("/lr") || name.starts_with("lr/");
    let size = value.abs();
    if !value.is_finite() {
        value.to_string()
    } else if is_rate || (size > 0.0 && size < 1e-3) || size >= 1e6 {
        exponent(value)
    } else if value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.4}")
    }
}

/// C's `%.2e`.
fn exponent(value: f64) -> String {
    let text = format!("{value:.2e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => match exponent.strip_prefix('-') {
            Some(digits) => format!("{mantissa}e-{digits:0>2}"),
            None => format!("{mantissa}e+{exponent:0>2}"),
        },
        None => text,
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.others, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_well() {
        let cases = [
            ("train/loss", 0.123_456, "0.1235"),
            ("train/lr", 1e-4, "1.00e-04"),
            ("lr/pg1", 0.5, "5.00e-01"),
            ("codes", 8.0, "8"),
            ("val/loss", 0.000_123, "1.23e-04"),
            ("num_samples", 2.5e7, "2.50e+07"),
            ("val/loss", f64::NAN, "NaN"),
            ("val/loss", 0.0, "0"),
        ];
        for (name, value, text) in cases {
            assert_eq!(format_value(name, value), text);
        }
        assert_eq!(logger_name("hlrp_train::checkpoint::save"), "train.checkpoint.save");
    }
}
