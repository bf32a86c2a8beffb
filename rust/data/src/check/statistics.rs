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

    /// Adds a value; one that is not finite is left out.
    fn add(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
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

    /// Adds what another part of the data has.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.entries.iter_mut().zip(&other.entries).for_each(|(entry, other)| *entry = entry.merged(other));
    }

    /// The first entry without a finite value.
    pub(crate) fn without_values(&self) -> Option<usize> {
        self.entries.iter().position(|entry| entry.count == 0.0)
    }

    /// Smallest and largest value of each entry; an empty range where there is none.
    pub(crate) fn ranges(&self) -> Vec<[f64; 2]> {
        self.entries.iter().map(|entry| [entry.min, entry.max]).collect()
    }

    /// By LeRobot's names; every entry has a value.
    pub(crate) fn values(&self) -> BTreeMap<String, Vec<f64>> {
        let of = |value: fn(&Entry) -> f64| self.entries.iter().map(value).collect::<Vec<f64>>();
        [
            ("count", vec![self.count]),
            ("mean", of(|entry| entry.mean)),
            ("std", of(|entry| (entry.squares / entry.count).sqrt())),
            ("min", of(|entry| entry.min)),
            ("max", of(|entry| entry.max)),
        ]
        .map(|(name, values)| (name.to_owned(), values))
        .into()
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
