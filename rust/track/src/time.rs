//! Times in records.

/// Now, RFC 3339 with the offset of this machine's time zone, to the second.
pub fn timestamp() -> String {
    jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

/// Now, Unix time in seconds.
pub fn unix_time() -> f64 {
    jiff::Timestamp::now().as_duration().as_secs_f64()
}
