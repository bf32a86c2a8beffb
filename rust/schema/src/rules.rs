//! Rules for many values.

use hlrp_config::Problem;
use std::fmt::Display;

pub(crate) type Checked = Result<(), Problem>;

/// Largest count and size. Products of three of them fit into 64 bits.
pub(crate) const MAX_COUNT: i128 = 1 << 20;
/// Largest number of steps, batches or MiB. A product with one [`MAX_COUNT`] fits into 64 bits.
pub(crate) const MAX_LONG: i128 = 1 << 40;

/// Largest number of threads.
pub(crate) const MAX_THREADS: i128 = 1 << 10;

pub(crate) fn require(good: bool, key: &str, message: impl Into<String>, hint: impl Into<String>) -> Checked {
    if good { Ok(()) } else { Err(Problem::new(key, message, hint)) }
}

/// A count or size from `least` to [`MAX_COUNT`].
pub(crate) fn at_least<T: Copy + Display + TryInto<i128>>(key: &str, value: T, least: T) -> Checked {
    within(key, value, least, MAX_COUNT)
}

/// A number of steps, batches or MiB from 1 to [`MAX_LONG`].
pub(crate) fn long_count<T: Copy + Display + TryInto<i128> + From<u8>>(key: &str, value: T) -> Checked {
    within(key, value, T::from(1), MAX_LONG)
}

/// A whole number in a range.
pub(crate) fn within<T: Copy + Display + TryInto<i128>>(key: &str, value: T, least: T, most: i128) -> Checked {
    // Whole numbers of 64 bits fit.
    let [number, lowest] = [value, least].map(|number| number.try_into().unwrap_or(i128::MAX));
    require(number >= lowest, key, format!("{value} is below {least}"), format!("set it to {least} or more"))?;
    require(number <= most, key, format!("{value} is above {most}"), format!("set it from {least} to {most}"))
}

pub(crate) fn not_negative(key: &str, value: f64) -> Checked {
    let good = value.is_finite() && value >= 0.0;
    require(good, key, format!("{value:?} is negative"), "set it to 0 or more")
}

pub(crate) fn positive(key: &str, value: f64) -> Checked {
    let good = value.is_finite() && value > 0.0;
    require(good, key, format!("{value:?} is not above 0"), "set it above 0")
}

/// A fraction from 0 to 1; 1 itself only where it is not `open`.
pub(crate) fn fraction(key: &str, value: f64, open: bool) -> Checked {
    let good = (0.0..=1.0).contains(&value) && !(open && value >= 1.0);
    let range = if open { "from 0 to below 1" } else { "from 0 to 1" };
    require(good, key, format!("{value:?} is not a fraction {range}"), format!("set it {range}"))
}

/// A name that becomes a directory.
pub(crate) fn directory_name(key: &str, name: &str) -> Checked {
    let good = !name.is_empty() && name.chars().all(|char| char.is_ascii_alphanumeric() || "_-".contains(char));
    require(good, key, format!("'{name}' is not a directory name"), "use letters, digits, '_' and '-'")
}

pub(crate) fn section(name: &str, checked: Checked) -> Checked {
    checked.map_err(|problem| problem.inside(name))
}
