//! What the codes say about the actions of a pair: the variance that they explain, and their mutual information with binned actions.

use super::Scene;
use super::collect::Record;
use super::output::Output;
use crate::validation::entropy;
use hlrp_track::plot::{BarChart, render_bars};
use hlrp_track::table::ResultTable;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub(super) fn run(scene: &Scene<'_>, output: &mut Output) -> anyhow::Result<()> {
    let mut found = Map::new();
    let mut table = ResultTable::new([
        "dataset",
        "dimension",
        "explained",
        "adjusted",
        "shuffled",
        "information",
        "of",
        "shuffled",
    ]);
    for source in super::sources(scene.collected) {
        let records: Vec<&Record> = scene.collected.records.iter().filter(|record| record.source == source).collect();
        let actions: Vec<&Vec<f64>> = records.iter().filter_map(|record| record.action.as_ref()).collect();
        let num_dims = actions.first().map_or(0, |action| action.len());
        if actions.len() != records.len() || num_dims == 0 {
            output.note(format!("{source} has no actions"));
            continue;
        }
        let sequences = numbered(records.iter().map(|record| record.codes.as_slice()));
        let (mut dims, mut bars) = (Vec::new(), Vec::new());
        for dim in 0..num_dims {
            let values: Vec<f64> = actions.iter().map(|action| action[dim]).collect();
            let bins = equal_bins(&values, scene.config.num_action_bins);
            let variance = explained(&values, &sequences);
            let information = mutual_information(&sequences, &bins);
            let by_slot: Vec<Value> = (0..records[0].codes.len())
                .map(|slot| {
                    let codes = numbered(records.iter().map(|record| &record.codes[slot..=slot]));
                    json!({
                        "explained_variance": explained(&values, &codes).0,
                        "mutual_information": mutual_information(&codes, &bins),
                    })
                })
                .collect();
            let shuffled = rotated(&sequences);
            let (shuffled_variance, shuffled_information) =
                (explained(&values, &shuffled), mutual_information(&shuffled, &bins));
            let bin_entropy = entropy_of(&bins);
            let percent = |fraction: f64| format!("{:.1} %", 100.0 * fraction);
            table = table.row([
                source.to_owned(),
                dim.to_string(),
                percent(variance.0),
                percent(variance.1),
                percent(shuffled_variance.0),
                format!("{information:.3}"),
                format!("{bin_entropy:.3}"),
                format!("{shuffled_information:.3}"),
            ]);
            bars.push(variance.1.max(0.0));
            dims.push(json!({
                "explained_variance": variance.0,
                "explained_variance_adjusted": variance.1,
                "explained_variance_shuffled": shuffled_variance.0,
                "mutual_information": information,
                "mutual_information_shuffled": shuffled_information,
                "action_entropy": bin_entropy,
                "by_slot": by_slot,
            }));
        }
        let chart = BarChart {
            title: format!("Variance of the actions that the sequences of codes explain, adjusted: {source}"),
            x_label: "dimension of the summed action".into(),
            y_label: "fraction".into(),
            values: bars,
            names: Vec::new(),
            reference: Some(("all of it".into(), 1.0)),
        };
        output.image(&format!("explained_variance_{source}"), &render_bars(source, &chart)?)?;
        found.insert(source.to_owned(), json!({ "num_samples": records.len(), "dimensions": dims }));
    }
    output.json("action_information", &found)?;
    if !table.is_empty() {
        output.note(
            "Explained: 1 - variance within the samples of a sequence / variance; adjusted for the number of sequences. Information: \
             nats between sequence and binned action, of the entropy of the bins. Shuffled: codes of the sample half the data away.",
        );
        output.table(table);
    }
    Ok(())
}

/// The number of each item, by first appearance.
fn numbered<'a>(items: impl Iterator<Item = &'a [i64]>) -> Vec<usize> {
    let mut known: BTreeMap<&[i64], usize> = BTreeMap::new();
    items
        .map(|item| {
            let next = known.len();
            *known.entry(item).or_insert(next)
        })
        .collect()
}

/// Each sample's group replaced by that of the sample half the data away.
fn rotated(groups: &[usize]) -> Vec<usize> {
    let mut rotated = groups.to_vec();
    rotated.rotate_left(groups.len() / 2);
    rotated
}

/// Fraction of the variance of `values` that is between groups, and the same with the degrees of freedom counted (ε²).
fn explained(values: &[f64], groups: &[usize]) -> (f64, f64) {
    let num = values.len() as f64;
    let mean = values.iter().sum::<f64>() / num;
    let total: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let mut sums: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
    for (value, group) in values.iter().zip(groups) {
        let sum = sums.entry(*group).or_default();
        *sum = (sum.0 + value, sum.1 + 1.0);
    }
    let within: f64 =
        values.iter().zip(groups).map(|(value, group)| (value - sums[group].0 / sums[group].1).powi(2)).sum();
    if total <= 0.0 {
        return (0.0, 0.0);
    }
    let num_groups = sums.len() as f64;
    let adjusted = if num > num_groups { 1.0 - within / (num - num_groups) / (total / (num - 1.0)) } else { 0.0 };
    (1.0 - within / total, adjusted)
}

/// Bins with about equally many values: the fraction of values below decides; equal values share a bin.
fn equal_bins(values: &[f64], num_bins: usize) -> Vec<usize> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    values.iter().map(|value| sorted.partition_point(|other| other < value) * num_bins / values.len()).collect()
}

fn counts<T: Ord + Copy>(items: &[T]) -> BTreeMap<T, u64> {
    items.iter().fold(BTreeMap::new(), |mut counts, item| {
        *counts.entry(*item).or_default() += 1;
        counts
    })
}

/// Entropy in nats of the frequencies of items.
fn entropy_of<T: Ord + Copy>(items: &[T]) -> f64 {
    let counts: Vec<u64> = counts(items).into_values().collect();
    entropy(counts.into_iter())
}

/// I(A;B) = H(A) + H(B) − H(A,B) of the frequencies, in nats.
fn mutual_information(a: &[usize], b: &[usize]) -> f64 {
    let both: Vec<(usize, usize)> = a.iter().copied().zip(b.iter().copied()).collect();
    entropy_of(a) + entropy_of(b) - entropy_of(&both)
}
