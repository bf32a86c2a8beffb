//! Analysis 5: which dataset uses which sequence of codes.

use super::output::Output;
use super::{Scene, sources};
use crate::validation::sequence_name;
use hlrp_track::plot::{Heatmap, render_heatmap};
use std::collections::BTreeMap;

pub(super) fn run(scene: &Scene<'_>, output: &mut Output) -> anyhow::Result<()> {
    let sources: Vec<&str> = sources(scene.collected).into_iter().collect();
    let mut counts: BTreeMap<&[i64], BTreeMap<&str, usize>> = BTreeMap::new();
    for record in &scene.collected.records {
        *counts.entry(&record.codes).or_default().entry(&record.source).or_default() += 1;
    }
    let mut sequences: Vec<_> = counts.into_iter().collect();
    sequences.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.values().sum::<usize>()));
    sequences.truncate(scene.config.top_k_heatmap);
    let (mut cells, mut table) = (Vec::new(), Vec::new());
    for (codes, counts) in &sequences {
        let total: usize = counts.values().sum();
        let of = |source: &&str| counts.get(*source).copied().unwrap_or(0);
        let fraction = |count: usize| count as f64 / total as f64;
        let cell = |count: usize| (fraction(count), format!("{count} ({:.0} %)", 100.0 * fraction(count)));
        cells.push(sources.iter().map(|source| cell(of(source))).collect());
        let head = [sequence_name(codes), total.to_string()];
        table.push(head.into_iter().chain(sources.iter().map(|source| of(source).to_string())).collect());
    }
    let columns: Vec<String> =
        ["sequence", "total"].into_iter().chain(sources.iter().copied()).map(str::to_owned).collect();
    output.csv("distribution", &columns, &table)?;
    let map = Heatmap {
        title: format!("The {} most frequent sequences by dataset", sequences.len()),
        columns: columns[2..].to_vec(),
        rows: sequences.iter().map(|(codes, _)| sequence_name(codes)).collect(),
        cells,
    };
    output.image("heatmap", &render_heatmap("heatmap", &map)?)
}
