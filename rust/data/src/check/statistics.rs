//! Statistics of the data against those that the dataset recorded.

use crate::formats::FeatureStats;
use crate::statistics::Statistics;
use std::collections::BTreeMap;

/// How far a statistic may be off, relative to the range of the values: the recorder sums in single precision.
const TOLERANCE: f64 = 1e-3;

/// The differences between the recorded statistics `said` and those of the data, one line each. Statistics of cameras are samples and
/// are not compared.
pub(crate) fn compare(said: &BTreeMap<String, FeatureStats>, statistics: &BTreeMap<&str, Statistics>) -> Vec<String> {
    let mut findings = Vec::new();
    if said.is_empty() {
        findings.push("there are no statistics".to_owned());
    }
    for (key, stats) in said {
        let Some(ours) = statistics.get(key.as_str()) else { continue };
        for (name, values) in &stats.values {
            if values.is_empty() || ours.width % values.len() != 0 {
                findings.push(format!("{key}: {name} has {} values, but rows have {}", values.len(), ours.width));
                continue;
            }
            if name == "count" {
                if values[0] != ours.count {
                    findings.push(format!("{key}: count is {}, but there are {} rows", values[0], ours.count));
                }
                continue;
            }
            for (at, (entry, &value)) in ours.folded(values.len()).iter().zip(values).enumerate() {
                let Some(expected) = entry.value(name) else { continue };
                let [min, max] = entry.range();
                let tolerance = TOLERANCE * (max - min) + 1e-5 * entry.mean().abs() + 1e-6;
                // A comparison that a NaN fails, too.
                let is_near = (value - expected).abs() <= tolerance;
                if !is_near {
                    // A sum with zero has no negative zero.
                    let (value, expected) = (value + 0.0, expected + 0.0);
                    findings.push(format!("{key}[{at}]: {name} is {value}, but that of the data is {expected}"));
                }
            }
        }
    }
    findings
}
