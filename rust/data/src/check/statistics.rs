//! Statistics of the data against those that the dataset recorded.

use crate::formats::FeatureStats;
use std::collections::BTreeMap;

/// How far a statistic may be off, relative to the range of the values: the recorder sums in single precision.
const TOLERANCE: f64 = 1e-3;

/// Running statistics of a feature, one per entry.
pub(crate) struct Statistics {
    width: usize,
    count: f64,
    entries: Vec<Entry>,
}

/// Running statistics of one entry of a vector.
#[derive(Clone)]
struct Entry {
    count: f64,
    mean: f64,
    /// Sum of squared deviations from the mean (Welford).
    squares: f64,
    min: f64,
    max: f64,
}

impl Entry {
    const EMPTY: Self = Self { count: 0.0, mean: 0.0, squares: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY };

    fn add(&mut self, value: f64) {
        self.count += 1.0;
        let delta = value - self.mean;
        self.mean += delta / self.count;
        self.squares += delta * (value - self.mean);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    /// Both together (Chan et al.'s parallel variance).
    fn merged(&self, other: &Self) -> Self {
        let count = self.count + other.count;
        if count == 0.0 {
            return Self::EMPTY;
        }
        let delta = other.mean - self.mean;
        Self {
            count,
            mean: self.mean + delta * other.count / count,
            squares: self.squares + other.squares + delta * delta * self.count * other.count / count,
            min: self.min.min(other.min),
            max: self.max.max(other.max),
        }
    }
}

impl Statistics {
    pub(crate) fn new(width: usize) -> Self {
        Self { width, count: 0.0, entries: vec![Entry::EMPTY; width] }
    }

    /// Adds `values` (`[rows, width]`).
    pub(crate) fn add(&mut self, values: &[f64]) {
        for row in values.chunks_exact(self.width.max(1)) {
            self.count += 1.0;
            self.entries.iter_mut().zip(row).for_each(|(entry, &value)| entry.add(value));
        }
    }

    /// Statistics over groups of entries: a recorder may give one value per entry of the last dimension only.
    fn folded(&self, width: usize) -> Vec<Entry> {
        let fold = |at: usize| self.entries.iter().skip(at).step_by(width).fold(Entry::EMPTY, |sum, e| sum.merged(e));
        (0..width).map(fold).collect()
    }
}

/// What of `said` is not what was summed up, one line each. Statistics of cameras are samples and are not compared.
pub(crate) fn compare(said: &BTreeMap<String, FeatureStats>, statistics: &BTreeMap<&str, Statistics>) -> Vec<String> {
    let mut findings = Vec::new();
    if said.is_empty() {
        findings.push("there are no statistics, so nothing can be normalised by them".to_owned());
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
                let expected = match name.as_str() {
                    "mean" => entry.mean,
                    "std" => (entry.squares / entry.count).sqrt(),
                    "min" => entry.min,
                    "max" => entry.max,
                    _ => continue,
                };
                let tolerance = TOLERANCE * (entry.max - entry.min) + 1e-5 * entry.mean.abs() + 1e-6;
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
