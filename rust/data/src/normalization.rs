//! Statistics that normalise states and actions: over the training episodes in use, of all sources of a mixture.
//!
//! Held-out episodes and those that the configuration leaves out do not count. Where every anchor is drawn once in each epoch, every row counts
//! once, whatever its source. Where sources have shares of their own, each counts by its share, and where episodes are drawn uniformly, each
//! as much as any other of its source. Values that are not finite do not count. Where sources differ in their dimensions, those of a narrow one
//! are the first of the widest, and a dimension has the statistics of the sources that have it.

use crate::error::DataError;
use crate::mixture::Mixture;
use crate::parallel::in_parallel;
use crate::request::EpisodeSpan;
use crate::source::{Source, Split, VectorKey};
use crate::statistics::Statistics;
use hlrp_config::Problem;
use hlrp_schema::UniformOver;
use std::{collections::BTreeMap, iter};

/// Quantiles are computed from at most this many rows, spread evenly over all.
const MAX_QUANTILE_ROWS: u64 = 1 << 20;
/// Episodes that one thread sums up at a time.
const EPISODES_AT_ONCE: usize = 64;
/// Quantiles by LeRobot's names.
const QUANTILES: [(&str, f64); 2] = [("q01", 0.01), ("q99", 0.99)];

/// Statistics of a state or action.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorStatistics {
    /// Its dimensions: those of the widest source.
    pub dim: usize,
    /// Over the rows of the training episodes of all sources, weighted as they are drawn, by LeRobot's names: `mean`, `std`, `min`, `max`, `q01`,
    /// `q99`, `count`.
    pub values: BTreeMap<String, Vec<f64>>,
    /// Smallest and largest value of each dimension in the episodes of both splits, by source; an empty range where it has none.
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
    num_rows: u64,
    quantile_rows: Rows,
}

impl Summed {
    /// Of no rows.
    fn new(width: usize) -> Self {
        Self { statistics: Statistics::new(width), num_rows: 0, quantile_rows: Rows::default() }
    }
}

/// Rows and how much each counts.
#[derive(Default)]
struct Rows {
    rows_RN: Vec<f32>,
    weights_R: Vec<f64>,
}

impl Rows {
    /// Adds rows of `width` values as rows of `dim`, each of which counts `scale` times as much as there; NaN is a value that there is not.
    fn extend(&mut self, other: &Self, width: usize, dim: usize, scale: f64) {
        let missing = iter::repeat_n(f32::NAN, dim - width);
        let rows = other.rows_RN.chunks_exact(width.max(1));
        self.rows_RN.extend(rows.flat_map(|row| row.iter().copied().chain(missing.clone())));
        self.weights_R.extend(other.weights_R.iter().map(|weight| weight * scale));
    }
}

impl Mixture {
    /// Statistics of the states; none where no source has any.
    ///
    /// # Errors
    /// [`Problem`] with a source that has a dimension without any finite value for training; a file that cannot be read.
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
        let keys: Vec<Option<&VectorKey>> = self.sources.iter().map(vector.of).collect();
        let width = |key: &Option<&VectorKey>| key.map(|key| key.width);
        let Some(dim) = keys.iter().filter_map(width).max() else { return Ok(None) };
        let stride = self.num_training_rows().div_ceil(MAX_QUANTILE_ROWS).max(1);
        let parts = self.parts();
        let summed = in_parallel(&parts, |part| {
            let is_seen = |span: &EpisodeSpan| (vector.is_seen)(&self.sources[part.source], span, part.split);
            let over_episodes = self.loader.uniform_over == UniformOver::Episodes;
            let Some(key) = keys[part.source] else { return Ok(Summed::new(0)) };
            sum_up(&self.sources[part.source], key, part, is_seen, over_episodes, stride)
        });
        let summed = summed.into_iter().collect::<Result<Vec<_>, _>>()?;
        let scales = self.scales(&parts, &summed);
        let mut training = Statistics::new(dim);
        let mut of_sources: Vec<Statistics> = self.sources.iter().map(|_| Statistics::new(dim)).collect();
        let mut rows = Rows::default();
        for (part, Summed { statistics, quantile_rows, .. }) in parts.iter().zip(summed) {
            of_sources[part.source].merge(&statistics);
            let scale = scales[part.source];
            if part.split == Split::Train && scale > 0.0 {
                training.merge(&statistics.scaled(scale));
                rows.extend(&quantile_rows, statistics.width, dim, scale);
            }
        }
        let first_with = |at: usize| {
            let mut owners = keys.iter().zip(&self.sources).filter_map(|(key, source)| Some((at, (*key)?, source)));
            owners.find(|(at, key, _)| key.width > *at)
        };
        if let Some((at, owner, source)) = training.without_values().and_then(first_with) {
            let message = format!("`{}`[{at}] has no finite value in any training episode", owner.key);
            let key = format!("data.sources.{}.{}_key", source.name, vector.name);
            let hint = "record the dataset again, leave the source out, or set the key to null";
            return Err(Problem::new(key, message, hint).into());
        }
        let mut values = training.values();
        values.extend(quantiles(&rows, dim));
        let ranges = self.sources.iter().zip(of_sources).map(|(source, sum)| (source.name.clone(), sum.ranges()));
        Ok(Some(VectorStatistics { dim, values, ranges: ranges.collect() }))
    }

    /// By source how much a row of the training episodes counts; 1 where every anchor is drawn once in each epoch.
    fn scales(&self, parts: &[Part<'_>], summed: &[Summed]) -> Vec<f64> {
        if self.mixing.is_none() {
            return vec![1.0; self.sources.len()];
        }
        let mut counts = vec![0.0; self.sources.len()];
        let mut num_rows = 0;
        for (part, summed) in parts.iter().zip(summed).filter(|(part, _)| part.split == Split::Train) {
            counts[part.source] += summed.statistics.count;
            num_rows += summed.num_rows;
        }
        let is_seen = |(count, share): (&f64, &f64)| if *count > 0.0 { *share } else { 0.0 };
        let seen_share: f64 = counts.iter().zip(&self.shares).map(is_seen).sum();
        let total = num_rows as f64;
        let scale =
            |(count, share): (&f64, &f64)| if *count > 0.0 { share * total / (seen_share * count) } else { 0.0 };
        counts.iter().zip(&self.shares).map(scale).collect()
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
    over_episodes: bool,
    stride: u64,
) -> Result<Summed, DataError> {
    let mut summed = Summed::new(vector.width);
    for span in part.spans.iter().filter(|span| is_seen(span)) {
        let rows: Vec<u64> = (span.from_row..span.to_row).collect();
        summed.num_rows += rows.len() as u64;
        let weight = if over_episodes { 1.0 / rows.len().max(1) as f64 } else { 1.0 };
        let mut values_TN = vec![0.0; rows.len() * vector.width];
        source.dataset.read_vectors(&vector.key, &rows, &mut values_TN)?;
        if part.split == Split::Train {
            let chosen = rows.iter().zip(values_TN.chunks_exact(vector.width.max(1)));
            for (_, row_N) in chosen.filter(|(row, _)| row.is_multiple_of(stride)) {
                summed.quantile_rows.rows_RN.extend(row_N);
                summed.quantile_rows.weights_R.push(weight);
            }
        }
        let values_TN: Vec<f64> = values_TN.into_iter().map(f64::from).collect();
        if over_episodes {
            let mut of_episode = Statistics::new(vector.width);
            of_episode.add(&values_TN);
            summed.statistics.merge(&of_episode.scaled(weight));
        } else {
            summed.statistics.add(&values_TN);
        }
    }
    Ok(summed)
}

/// Quantiles of each dimension, linear between neighbours. A row counts by its weight: it is in the middle of its stretch of the sum of weights,
/// from 0 at the middle of the first to 1 at the middle of the last.
fn quantiles(rows: &Rows, dim: usize) -> BTreeMap<String, Vec<f64>> {
    let sorted = |at: usize| {
        let values = rows.rows_RN.iter().skip(at).step_by(dim).copied().zip(rows.weights_R.iter().copied());
        let mut column: Vec<(f64, f64)> =
            values.filter(|(value, _)| value.is_finite()).map(|(value, weight)| (f64::from(value), weight)).collect();
        column.sort_by(|a, b| a.0.total_cmp(&b.0));
        column
    };
    let columns: Vec<Vec<(f64, f64)>> = (0..dim).map(sorted).collect();
    if columns.iter().any(Vec::is_empty) {
        return BTreeMap::new();
    }
    let of = |fraction: f64| columns.iter().map(|column| quantile(column, fraction)).collect();
    QUANTILES.iter().map(|(name, fraction)| ((*name).to_owned(), of(*fraction))).collect()
}

/// A quantile of values with weights, sorted by value.
fn quantile(column: &[(f64, f64)], fraction: f64) -> f64 {
    let (first, last) = (column[0], column[column.len() - 1]);
    if column.iter().all(|(_, weight)| *weight == first.1) {
        let place = fraction * (column.len() - 1) as f64;
        let (low, high) = (column[place.floor() as usize].0, column[place.ceil() as usize].0);
        return low + (high - low) * place.fract();
    }
    let total: f64 = column.iter().map(|(_, weight)| weight).sum();
    let wanted = fraction * (total - (first.1 + last.1) / 2.0);
    let mut middle = 0.0;
    for pair in column.windows(2) {
        let step = (pair[0].1 + pair[1].1) / 2.0;
        if middle + step >= wanted {
            return pair[0].0 + (pair[1].0 - pair[0].0) * ((wanted - middle) / step);
        }
        middle += step;
    }
    last.0
}
