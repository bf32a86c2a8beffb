//! Statistics that normalise states and actions: over the training episodes in use, of all sources of a mixture.
//!
//! Held-out episodes and those that the configuration leaves out do not count. Every row counts once, whatever its source; values that
//! are not finite do not count.

use crate::error::DataError;
use crate::mixture::{Mixture, in_parallel};
use crate::request::EpisodeSpan;
use crate::source::{Source, Split, VectorKey};
use crate::statistics::Statistics;
use hlrp_config::Problem;
use std::collections::BTreeMap;

/// Quantiles are computed from at most this many rows, spread evenly over all.
const MAX_QUANTILE_ROWS: u64 = 1 << 20;
/// Episodes that one thread sums up at a time.
const EPISODES_AT_ONCE: usize = 64;
/// Quantiles by LeRobot's names.
const QUANTILES: [(&str, f64); 2] = [("q01", 0.01), ("q99", 0.99)];

/// Statistics of a state or action.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorStatistics {
    /// Its dimensions.
    pub dim: usize,
    /// Over the rows of the training episodes of all sources, by LeRobot's names: `mean`, `std`, `min`, `max`, `q01`, `q99`, `count`.
    pub values: BTreeMap<String, Vec<f64>>,
    /// Smallest and largest value of each dimension in the episodes of both splits, by source.
    pub ranges: Vec<(String, Vec<[f64; 2]>)>,
}

/// A state or action in all sources.
#[derive(Clone, Copy)]
struct Vector {
    name: &'static str,
    of: fn(&Source) -> Option<&VectorKey>,
    /// Whether it may be seen in an episode of a split.
    is_seen: fn(&Source, &EpisodeSpan, Split) -> bool,
}

/// Some episodes of one source.
struct Part<'a> {
    source: usize,
    split: Split,
    spans: &'a [EpisodeSpan],
}

/// Statistics of a part, and its rows that count for quantiles.
struct Summed {
    statistics: Statistics,
    rows_RN: Vec<f32>,
}

impl Mixture {
    /// Statistics of the states; none where a source has none.
    ///
    /// # Errors
    /// [`Problem`] with the source whose states differ from those of the others in their dimensions, or have no finite value; a file that
    /// cannot be read.
    pub fn state_statistics(&self) -> Result<Option<VectorStatistics>, DataError> {
        self.statistics(Vector { name: "state", of: |source| source.state.as_ref(), is_seen: |_, _, _| true })
    }

    /// Statistics of the actions, as [`Mixture::state_statistics`].
    ///
    /// # Errors
    /// As [`Mixture::state_statistics`].
    pub fn action_statistics(&self) -> Result<Option<VectorStatistics>, DataError> {
        self.statistics(Vector { name: "action", of: |source| source.action.as_ref(), is_seen: Source::shows_actions })
    }

    fn statistics(&self, vector: Vector) -> Result<Option<VectorStatistics>, DataError> {
        let keys: Option<Vec<&VectorKey>> = self.sources.iter().map(vector.of).collect();
        let Some(keys) = keys.filter(|keys| !keys.is_empty()) else { return Ok(None) };
        let dim = keys[0].width;
        for (source, key) in self.sources.iter().zip(&keys) {
            if key.width != dim {
                let message = format!("`{}` has {} dimensions, that of another source {dim}", key.key, key.width);
                return Err(
                    refuse(source, vector, message, "train on sources of one robot, or leave this one out").into()
                );
            }
        }
        let stride = self.num_training_rows().div_ceil(MAX_QUANTILE_ROWS).max(1);
        let parts = self.parts();
        let summed = in_parallel(&parts, |part| {
            let is_seen = |span: &EpisodeSpan| (vector.is_seen)(&self.sources[part.source], span, part.split);
            sum_up(&self.sources[part.source], keys[part.source], part, is_seen, stride)
        });

        let mut training = Statistics::new(dim);
        let mut of_sources: Vec<Statistics> = self.sources.iter().map(|_| Statistics::new(dim)).collect();
        let mut rows_RN = Vec::new();
        for (part, summed) in parts.iter().zip(summed) {
            let Summed { statistics, rows_RN: rows } = summed?;
            of_sources[part.source].merge(&statistics);
            if part.split == Split::Train {
                training.merge(&statistics);
                rows_RN.extend(rows);
            }
        }
        if let Some(at) = training.without_values() {
            let message = format!("`{}`[{at}] has no finite value in any training episode", keys[0].key);
            return Err(refuse(&self.sources[0], vector, message, "record the dataset again, or set it to null").into());
        }
        let mut values = training.values();
        values.extend(quantiles(&rows_RN, dim));
        let ranges = self.sources.iter().zip(of_sources).map(|(source, sum)| (source.name.clone(), sum.ranges()));
        Ok(Some(VectorStatistics { dim, values, ranges: ranges.collect() }))
    }

    fn num_training_rows(&self) -> u64 {
        self.sources.iter().flat_map(|source| source.episodes(Split::Train)).map(EpisodeSpan::num_frames).sum()
    }

    fn parts(&self) -> Vec<Part<'_>> {
        let of_split = |(source, split): (usize, Split)| {
            let spans = self.sources[source].episodes(split).chunks(EPISODES_AT_ONCE);
            spans.map(move |spans| Part { source, split, spans })
        };
        let splits = (0..self.sources.len()).flat_map(|source| [(source, Split::Train), (source, Split::Validation)]);
        splits.flat_map(of_split).collect()
    }
}

fn sum_up(
    source: &Source,
    vector: &VectorKey,
    part: &Part<'_>,
    is_seen: impl Fn(&EpisodeSpan) -> bool,
    stride: u64,
) -> Result<Summed, DataError> {
    let mut summed = Summed { statistics: Statistics::new(vector.width), rows_RN: Vec::new() };
    for span in part.spans.iter().filter(|span| is_seen(span)) {
        let rows: Vec<u64> = (span.from_row..span.to_row).collect();
        let mut values_TN = vec![0.0; rows.len() * vector.width];
        source.dataset.read_vectors(&vector.key, &rows, &mut values_TN)?;
        if part.split == Split::Train {
            let chosen = rows.iter().zip(values_TN.chunks_exact(vector.width.max(1)));
            chosen.filter(|(row, _)| row.is_multiple_of(stride)).for_each(|(_, row_N)| summed.rows_RN.extend(row_N));
        }
        summed.statistics.add(&values_TN.into_iter().map(f64::from).collect::<Vec<_>>());
    }
    Ok(summed)
}

/// Quantiles of each dimension, linear between neighbours.
fn quantiles(rows_RN: &[f32], dim: usize) -> BTreeMap<String, Vec<f64>> {
    let sorted = |at: usize| {
        let column = rows_RN.iter().skip(at).step_by(dim).copied();
        let mut column: Vec<f64> = column.filter(|value| value.is_finite()).map(f64::from).collect();
        column.sort_by(f64::total_cmp);
        column
    };
    let columns: Vec<Vec<f64>> = (0..dim).map(sorted).collect();
    if columns.iter().any(Vec::is_empty) {
        return BTreeMap::new();
    }
    let quantile = |column: &Vec<f64>, fraction: f64| {
        let place = fraction * (column.len() - 1) as f64;
        let (low, high) = (column[place.floor() as usize], column[place.ceil() as usize]);
        low + (high - low) * place.fract()
    };
    let of = |fraction: f64| columns.iter().map(|column| quantile(column, fraction)).collect();
    QUANTILES.iter().map(|(name, fraction)| ((*name).to_owned(), of(*fraction))).collect()
}

fn refuse(source: &Source, vector: Vector, message: String, hint: &str) -> Problem {
    Problem::new(format!("data.sources.{}.{}_key", source.name, vector.name), message, hint)
}
