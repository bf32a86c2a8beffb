//! Running statistics of a vector: mean, standard deviation, smallest and largest value of each entry.

use std::collections::BTreeMap;

/// Running statistics of a feature, one per entry.
pub(crate) struct Statistics {
    /// Number of entries.
    pub(crate) width: usize,
    /// Number of rows.
    pub(crate) count: f64,
    entries: Vec<Entry>,
}

/// Running statistics of one entry of a vector.
#[derive(Clone)]
pub(crate) struct Entry {
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

    /// A statistic by LeRobot's name; none where it is not one of these.
    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        Some(match name {
            "mean" => self.mean,
            "std" => (self.squares / self.count).sqrt(),
            "min" => self.min,
            "max" => self.max,
            _ => return None,
        })
    }

    /// Mean of the finite values.
    pub(crate) fn mean(&self) -> f64 {
        self.mean
    }

    /// Smallest and largest value; an empty range where there is none.
    pub(crate) fn range(&self) -> [f64; 2] {
        [self.min, self.max]
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

    /// Adds the statistics of another part of the data; where that has fewer entries, they are the first.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.entries.iter_mut().zip(&other.entries).for_each(|(entry, other)| *entry = entry.merged(other));
    }

    /// The same statistics of rows that count `scale` times.
    pub(crate) fn scaled(&self, scale: f64) -> Self {
        let scaled = |entry: &Entry| Entry { count: entry.count * scale, squares: entry.squares * scale, ..*entry };
        Self { width: self.width, count: self.count * scale, entries: self.entries.iter().map(scaled).collect() }
    }

    /// The first entry without a finite value.
    pub(crate) fn without_values(&self) -> Option<usize> {
        self.entries.iter().position(|entry| entry.count == 0.0)
    }

    /// [`Entry::range`] of each entry.
    pub(crate) fn ranges(&self) -> Vec<[f64; 2]> {
        self.entries.iter().map(Entry::range).collect()
    }

    /// By LeRobot's names; every entry has a value.
    pub(crate) fn values(&self) -> BTreeMap<String, Vec<f64>> {
        let of = |name: &str| self.entries.iter().filter_map(|entry| entry.value(name)).collect::<Vec<f64>>();
        let names = ["mean", "std", "min", "max"];
        let mut values: BTreeMap<String, Vec<f64>> = names.map(|name| (name.to_owned(), of(name))).into();
        values.insert("count".to_owned(), vec![self.count]);
        values
    }

    /// Statistics over groups of entries: a recorder may give one value per entry of the last dimension only.
    pub(crate) fn folded(&self, width: usize) -> Vec<Entry> {
        let fold = |at: usize| self.entries.iter().skip(at).step_by(width).fold(Entry::EMPTY, |sum, e| sum.merged(e));
        (0..width).map(fold).collect()
    }
}
