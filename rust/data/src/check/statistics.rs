//! Statistics of the data against those that the dataset recorded, and what they say about the data.

use super::findings::Findings;
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
            if is_quantile(name) {
                findings.extend(misplaced(key, name, stats, ours));
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

/// Quantiles as LeRobot names them: `q01` to `q99`.
fn is_quantile(name: &str) -> bool {
    name.strip_prefix('q').is_some_and(|digits| digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_digit()))
}

/// What is impossible of a recorded quantile, first entry: it is outside of the data, or below the next lower quantile.
fn misplaced(key: &str, name: &str, stats: &FeatureStats, ours: &Statistics) -> Option<String> {
    let values = &stats.values[name];
    let lower = stats.values.range(..name.to_owned()).rev().find(|(other, _)| is_quantile(other));
    ours.folded(values.len()).iter().zip(values).enumerate().find_map(|(at, (entry, &value))| {
        let [min, max] = entry.range();
        let tolerance = TOLERANCE * (max - min) + 1e-5 * entry.mean().abs() + 1e-6;
        if !(min - tolerance..=max + tolerance).contains(&value) {
            return Some(format!("{key}[{at}]: {name} is {value}, but the data is within {min} and {max}"));
        }
        let (lower, below) = lower.and_then(|(lower, values)| Some((lower, *values.get(at)?)))?;
        (value < below - tolerance).then(|| format!("{key}[{at}]: {name} is {value}, but {lower} is {below}"))
    })
}

/// Notes which statistics of features [`compare`] could not compare.
pub(crate) fn note_unverified(
    said: &BTreeMap<String, FeatureStats>,
    statistics: &BTreeMap<&str, Statistics>,
    findings: &mut Findings,
) {
    let without: Vec<&str> = statistics.keys().copied().filter(|key| !said.contains_key(*key)).collect();
    if !said.is_empty() && !without.is_empty() {
        findings.not_verified(format!("statistics of {}: the dataset has none", without.join(", ")));
    }
    let compared = said.iter().filter(|(key, _)| statistics.contains_key(key.as_str()));
    if compared.flat_map(|(_, stats)| stats.values.keys()).any(|name| is_quantile(name)) {
        findings.not_verified(
            "quantiles in the statistics, but for their range and order: LeRobot averages those of the episodes",
        );
    }
}

/// Entries of a feature that a note names.
const MAX_CONSTANTS: usize = 8;

/// Notes entries that never change, of all features but those that count and mark frames.
pub(crate) fn note_constants(statistics: &BTreeMap<&str, Statistics>, num_episodes: usize, findings: &mut Findings) {
    if num_episodes < 2 {
        return;
    }
    for (key, ours) in statistics {
        let name = key.rsplit(['.', '/']).next().unwrap_or_default();
        if name.ends_with("index") || name.starts_with("is_") {
            continue;
        }
        let entries = ours.ranges().into_iter().enumerate().filter(|(_, [min, max])| min == max);
        let mut entries: Vec<String> = entries.map(|(at, [value, _])| format!("[{at}] = {value}")).collect();
        if entries.len() > MAX_CONSTANTS {
            let num_more = entries.len() - MAX_CONSTANTS;
            entries.truncate(MAX_CONSTANTS);
            entries.push(format!("and {num_more} more"));
        }
        if !entries.is_empty() {
            findings.note(format!("`{key}` is constant over {num_episodes} episodes: {}", entries.join(", ")));
        }
    }
}
