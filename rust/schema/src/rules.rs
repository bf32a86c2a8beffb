//! Rules that many values share.

use hlrp_config::Problem;
use std::fmt::Display;

pub(crate) type Checked = Result<(), Problem>;

pub(crate) fn require(good: bool, key: &str, message: impl Into<String>, hint: impl Into<String>) -> Checked {
    if good { Ok(()) } else { Err(Problem::new(key, message, hint)) }
}

pub(crate) fn at_least<T: PartialOrd + Display>(key: &str, value: T, least: T) -> Checked {
    let hint = format!("set it to {least} or more");
    require(value >= least, key, format!("{value} is below {least}"), hint)
}

pub(crate) fn not_negative(key: &str, value: f64) -> Checked {
    let good = value.is_finite() && value >= 0.0;
    require(good, key, format!("{value} is not a number from 0 upwards"), "set it to 0 or more")
}

pub(crate) fn positive(key: &str, value: f64) -> Checked {
    let good = value.is_finite() && value > 0.0;
    require(good, key, format!("{value} is not a number above 0"), "set it above 0")
}

pub(crate) fn share(key: &str, value: f64, open: bool) -> Checked {
    let good = (0.0..=1.0).contains(&value) && !(open && value >= 1.0);
    let range = if open { "from 0 to below 1" } else { "from 0 to 1" };
    require(good, key, format!("{value} is not a share {range}"), format!("set it {range}"))
}

pub(crate) fn section(name: &str, checked: Checked) -> Checked {
    checked.map_err(|problem| problem.inside(name))
}
