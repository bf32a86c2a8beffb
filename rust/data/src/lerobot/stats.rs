//! `meta/stats.json`: statistics of every feature over the whole dataset.

use crate::DataError;
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

/// Statistics of one feature, one value per entry (of a camera: one per channel, in 0..1).
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureStats {
    /// By name: `min`, `max`, `mean`, `std`, `count`, and quantiles such as `q01`; nested lists are flattened.
    pub values: BTreeMap<String, Vec<f64>>,
}

/// Reads `meta/stats.json`; an absent file gives no statistics.
///
/// # Errors
/// When the file is not what LeRobot writes.
pub fn read_stats(root: &Path) -> Result<BTreeMap<String, FeatureStats>, DataError> {
    let path = root.join("meta/stats.json");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(DataError::io(path)(error)),
    };
    let tree: BTreeMap<String, BTreeMap<String, Value>> = serde_json::from_str(&text).map_err(|error| {
        DataError::file(&path, format!("is not the stats.json of a LeRobot dataset: {error}"), "fetch the file again")
    })?;
    let flat = |value: &Value| {
        let mut out = Vec::new();
        flatten(value, &mut out);
        out
    };
    let stats_of = |stats: BTreeMap<String, Value>| FeatureStats {
        values: stats.iter().map(|(name, value)| (name.clone(), flat(value))).collect(),
    };
    Ok(tree.into_iter().map(|(key, stats)| (key, stats_of(stats))).collect())
}

fn flatten(value: &Value, out: &mut Vec<f64>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| flatten(value, out)),
        Value::Bool(value) => out.push(f64::from(u8::from(*value))),
        other => out.push(other.as_f64().unwrap_or(f64::NAN)),
    }
}
