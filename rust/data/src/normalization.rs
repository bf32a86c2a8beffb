//! Statistics that normalise states and actions: over the training episodes in use, of all sources of a mixture.
//!
//! Held-out episodes and those that the configuration leaves out do not count. Where every anchor is drawn once in each epoch, every row counts
//! once, whatever its source. Where sources have shares of their own, each counts by its share, where labelled episodes have one, they and the
//! others count by theirs, and where episodes are drawn uniformly, each counts as much as any other of its source. Where a source has a filter,
//! only rows count that a sample of a kept anchor has. Values that are not finite do not count. Where sources differ in their dimensions, those of
//! a narrow one are the first of the widest, and a dimension has the statistics of the sources that have it.

use crate::error::DataError;
use crate::mixture::Mixture;
use crate::parallel::in_parallel;
use crate::request::EpisodeSpan;
use crate::source::{Source, Split, VectorKey};
use crate::statistics::Statistics;
use hlrp_config::Problem;
use hlrp_schema::UniformOver;
use std::{collections::BTreeMap, iter};

/// Quantiles are computed from about this many rows at most, of each source equally many, spread evenly over all of its own.
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
    /// Its offsets in a sample.
    deltas: fn(&Source) -> &[i64],
}

/// Some episodes of one source.
struct Part {
    source: usize,
    split: Split,
    /// Which of the groups that have shares of their own: the source, or 0 for labelled and 1 for other episodes.
    group: usize,
    spans: Vec<EpisodeSpan>,
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
        self.statistics(Vector {
            name: "state",
            of: |source| source.state.as_ref(),
            is_seen: |_, _, _| true,
            deltas: |source| &source.request.state_deltas,
        })
    }

    /// Statistics of the actions, as [`Mixture::state_statistics`].
    ///
    /// # Errors
    /// As [`Mixture::state_statistics`].
    pub fn action_statistics(&self) -> Result<Option<VectorStatistics>, DataError> {
        self.statistics(Vector {
            name: "action",
            of: |source| source.action.as_ref(),
            is_seen: Source::shows_actions,
            deltas: |source| &source.request.action_deltas,
        })
    }

    fn statistics(&self, vector: Vector) -> Result<Option<VectorStatistics>, DataError> {
        let keys: Vec<Option<&VectorKey>> = self.sources.iter().map(vector.of).collect();
        let width = |key: &Option<&VectorKey>| key.map(|key| key.width);
        let Some(dim) = keys.iter().filter_map(width).max() else { return Ok(None) };
        let strides = self.strides();
        let parts = self.parts();
        let summed = in_parallel(&parts, |part| {
            let over_episodes = self.loader.uniform_over == UniformOver::Episodes;
            let Some(key) = keys[part.source] else { return Ok(Summed::new(0)) };
            sum_up(&self.sources[part.source], key, vector, part, over_episodes, strides[part.source])
        });
        let summed = summed.into_iter().collect::<Result<Vec<_>, _>>()?;
        let scales = self.scales(&parts, &summed);
        let mut training = Statistics::new(dim);
        let mut of_sources: Vec<Statistics> = self.sources.iter().map(|_| Statistics::new(dim)).collect();
        let mut rows = Rows::default();
        for (part, Summed { statistics, quantile_rows, .. }) in parts.iter().zip(summed) {
            of_sources[part.source].merge(&statistics);
            let scale = scales[part.group];
            if part.split == Split::Train && scale > 0.0 {
                training.merge(&statistics.scaled(scale));
                rows.extend(&quantile_rows, statistics.width, dim, scale);
            }
        }
        if let Some(at) = training.without_values() {
            return Err(self.without_values(vector, at).into());
        }
        let mut values = training.values();
        values.extend(quantiles(&rows, dim));
        let ranges = self.sources.iter().zip(of_sources).map(|(source, sum)| (source.name.clone(), sum.ranges()));
        Ok(Some(VectorStatistics { dim, values, ranges: ranges.collect() }))
    }

    /// The error of a dimension without a value: of the first source that has it and is drawn, or that has it.
    fn without_values(&self, vector: Vector, at: usize) -> Problem {
        let owners = self.sources.iter().zip(&self.shares);
        let owners = owners.filter_map(|(source, share)| Some((source, (vector.of)(source)?, *share)));
        let owners: Vec<_> = owners.filter(|(_, owner, _)| owner.width > at).collect();
        let drawn = owners.iter().find(|(_, _, share)| *share > 0.0 || self.mixing.is_none());
        let Some((source, owner, _)) = drawn.or(owners.first()) else { unreachable!("dimension {at} is of no source") };
        let key = format!("data.sources.{}.{}_key", source.name, vector.name);
        if drawn.is_none() {
            let message = format!("`{}`[{at}] is of no source that is drawn for training", owner.key);
            let hint = format!("give the source a weight above 0, leave it out, or set {key} to null");
            return Problem::new(format!("data.sources.{}.weight", source.name), message, hint);
        }
        let message = format!("`{}`[{at}] has no finite value in any training sample", owner.key);
        Problem::new(key, message, "record the dataset again, leave the source out, or set the key to null")
    }

    /// By group how much a row of the training episodes counts; 1 where every anchor is drawn once in each epoch.
    fn scales(&self, parts: &[Part], summed: &[Summed]) -> Vec<f64> {
        let shares = match self.loader.labelled_fraction {
            Some(fraction) => vec![fraction, 1.0 - fraction],
            None if self.mixing.is_some() => self.shares.clone(),
            None => return vec![1.0; self.sources.len()],
        };
        let mut counts = vec![0.0; shares.len()];
        let mut num_rows = 0;
        for (part, summed) in parts.iter().zip(summed).filter(|(part, _)| part.split == Split::Train) {
            counts[part.group] += summed.statistics.count;
            num_rows += summed.num_rows;
        }
        let is_seen = |(count, share): (&f64, &f64)| if *count > 0.0 { *share } else { 0.0 };
        let seen_share: f64 = counts.iter().zip(&shares).map(is_seen).sum();
        let total = num_rows as f64;
        let scale =
            |(count, share): (&f64, &f64)| if *count > 0.0 { share * total / (seen_share * count) } else { 0.0 };
        counts.iter().zip(&shares).map(scale).collect()
    }

    /// By source one of how many of its rows counts for quantiles.
    fn strides(&self) -> Vec<u64> {
        let num_rows = |source: &Source| source.episodes(Split::Train).iter().map(EpisodeSpan::num_frames).sum::<u64>();
        let num_rows: Vec<u64> = self.sources.iter().map(num_rows).collect();
        if num_rows.iter().sum::<u64>() <= MAX_QUANTILE_ROWS {
            return vec![1; num_rows.len()];
        }
        let num_each = (MAX_QUANTILE_ROWS / num_rows.len().max(1) as u64).max(1);
        num_rows.iter().map(|num_rows| num_rows.div_ceil(num_each).max(1)).collect()
    }

    fn parts(&self) -> Vec<Part> {
        let mut parts = Vec::new();
        for (number, source) in self.sources.iter().enumerate() {
            for split in [Split::Train, Split::Validation] {
                let is_other = |span: &EpisodeSpan| !source.shows_actions(span, split);
                let (other, labelled): (Vec<_>, Vec<_>) = match self.loader.labelled_fraction {
                    Some(_) => source.episodes(split).iter().copied().partition(is_other),
                    None => (Vec::new(), source.episodes(split).to_vec()),
                };
                let groups = if self.loader.labelled_fraction.is_some() { [0, 1] } else { [number; 2] };
                for (group, spans) in groups.into_iter().zip([labelled, other]) {
                    let spans = spans.chunks(EPISODES_AT_ONCE).map(<[EpisodeSpan]>::to_vec);
                    parts.extend(spans.map(|spans| Part { source: number, split, group, spans }));
                }
            }
        }
        parts
    }
}

/// Rows of an episode that samples of its training anchors have at `deltas`: all, unless a filter leaves anchors out.
fn seen_rows(source: &Source, span: &EpisodeSpan, deltas: &[i64]) -> Vec<u64> {
    let kept = source.kept_rows(span);
    if kept == span.rows() {
        return (span.from_row..span.to_row).collect();
    }
    let mut is_seen = vec![false; span.num_frames() as usize];
    let last = span.num_frames().saturating_sub(1).cast_signed();
    for range in kept.iter().filter(|range| !range.is_empty()) {
        for delta in deltas {
            let place = |row: u64| ((row - span.from_row).cast_signed() + delta).clamp(0, last) as usize;
            is_seen[place(range.start)..=place(range.end - 1)].fill(true);
        }
    }
    (span.from_row..span.to_row).zip(is_seen).filter_map(|(row, is_seen)| is_seen.then_some(row)).collect()
}

fn sum_up(
    source: &Source,
    key: &VectorKey,
    vector: Vector,
    part: &Part,
    over_episodes: bool,
    stride: u64,
) -> Result<Summed, DataError> {
    let mut summed = Summed::new(key.width);
    for span in part.spans.iter().filter(|span| (vector.is_seen)(source, span, part.split)) {
        let rows = match part.split {
            Split::Train => seen_rows(source, span, (vector.deltas)(source)),
            Split::Validation => (span.from_row..span.to_row).collect(),
        };
        summed.num_rows += rows.len() as u64;
        let weight = if over_episodes { 1.0 / rows.len().max(1) as f64 } else { 1.0 };
        let mut values_TN = vec![0.0; rows.len() * key.width];
        source.dataset.read_vectors(&key.key, &rows, &mut values_TN)?;
        if part.split == Split::Train {
            let chosen = rows.iter().zip(values_TN.chunks_exact(key.width.max(1)));
            for (_, row_N) in chosen.filter(|(row, _)| row.is_multiple_of(stride)) {
                summed.quantile_rows.rows_RN.extend(row_N);
                // It stands for those that are passed over.
                summed.quantile_rows.weights_R.push(weight * stride as f64);
            }
        }
        let values_TN: Vec<f64> = values_TN.into_iter().map(f64::from).collect();
        if over_episodes {
            let mut of_episode = Statistics::new(key.width);
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
