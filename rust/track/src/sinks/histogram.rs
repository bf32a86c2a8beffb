//! Distributions that a validation returns.

/// Most bins of a histogram: W&B refuses more.
pub const MAX_BINS: usize = 512;

/// How often values fell into each of adjoining bins.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    counts: Vec<u64>,
    edges: Vec<f64>,
}

impl Histogram {
    /// `counts` of bins of equal width between `low` and `high`. Of more than [`MAX_BINS`] bins, neighbours become one.
    pub fn new(counts: &[u64], low: f64, high: f64) -> Self {
        let num = counts.len().max(1);
        let merged = num.div_ceil(MAX_BINS);
        let width = (high - low) / num as f64;
        let starts = (0..num).step_by(merged).chain([num]);
        Self {
            counts: counts.chunks(merged).map(|bins| bins.iter().sum()).collect(),
            edges: starts.map(|bin| low + width * bin as f64).collect(),
        }
    }

    /// How often each of the numbers 0, 1, 2, … occurred; each is the centre of its bin.
    pub fn of_counts(counts: &[u64]) -> Self {
        Self::new(counts, -0.5, counts.len() as f64 - 0.5)
    }

    /// How often, bin by bin.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// The edges of the bins in ascending order, one more than there are bins.
    pub fn edges(&self) -> &[f64] {
        &self.edges
    }
}

/// A histogram that a validation returns.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedHistogram {
    /// Full name, such as `val/codes_slot0`.
    pub name: String,
    /// The distribution.
    pub histogram: Histogram,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_the_centre_of_its_bin() {
        let histogram = Histogram::of_counts(&[3, 0, 1]);
        assert_eq!((histogram.counts(), histogram.edges()), ([3, 0, 1].as_slice(), [-0.5, 0.5, 1.5, 2.5].as_slice()));
    }

    #[test]
    fn neighbours_become_one_where_there_are_too_many_bins() {
        let counts: Vec<u64> = (0..1025).collect();
        let histogram = Histogram::new(&counts, 0.0, 1025.0);
        assert_eq!((histogram.counts().len(), histogram.edges().len()), (342, 343));
        assert_eq!((histogram.counts()[1], histogram.counts()[341]), (3 + 4 + 5, 1023 + 1024));
        assert_eq!(histogram.edges()[340..], [1020.0, 1023.0, 1025.0]);
        assert_eq!(histogram.counts().iter().sum::<u64>(), counts.iter().sum::<u64>());
    }
}
