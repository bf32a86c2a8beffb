//! Times in records.

/// Now, RFC 3339 with the offset of this machine's time zone, to the second.
pub fn timestamp() -> String {
    jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}
