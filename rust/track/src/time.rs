//! Times in records, and pauses that servers ask for.

use std::time::{Duration, SystemTime};

/// Now, RFC 3339 with the offset of this machine's time zone, to the second.
pub fn timestamp() -> String {
    jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

/// Now, Unix time in seconds.
pub fn unix_time() -> f64 {
    jiff::Timestamp::now().as_duration().as_secs_f64()
}

/// The pause that a header `Retry-After` asks for: seconds, or a date. None where it says something else, or a date that has passed.
pub fn retry_after(value: &str) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(value).ok()?;
    SystemTime::from(date.timestamp()).duration_since(SystemTime::now()).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;

    #[test]
    fn a_pause_is_given_in_seconds_or_as_a_date() {
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT"), None, "it has passed");
        let date = retry_after("Thu, 01 Jan 2099 00:00:00 GMT").unwrap();
        assert!(date > Duration::from_secs(3600 * 24 * 365));
        assert_eq!(retry_after("soon"), None);
    }
}
