//! Analysis 2: whether a sequence of codes means the same direction in every dataset.

use super::Scene;
use super::collect::Record;
use super::output::Output;
use hlrp_track::plot::{BarChart, render_bars};
use serde_json::json;
use std::collections::BTreeMap;

/// Sequences with a bar.
const MAX_BARS: usize = 20;

/// A sequence with a direction in several datasets.
struct Qualifying {
    name: String,
    variance: f64,
    support: usize,
    /// Dataset, angle in radians, samples.
    directions: Vec<(String, f64, usize)>,
}

pub(super) fn run(scene: &Scene<'_>, output: &mut Output) -> anyhow::Result<()> {
    let threshold = scene.config.min_samples_per_dataset;
    let mut by_sequence: BTreeMap<&[i64], BTreeMap<&str, Vec<&Record>>> = BTreeMap::new();
    for record in scene.collected.records.iter().filter(|record| !record.is_static) {
        by_sequence.entry(&record.codes).or_default().entry(&record.source).or_default().push(record);
    }
    let mut qualifying: Vec<Qualifying> = by_sequence
        .into_iter()
        .filter_map(|(codes, by_source)| qualify(crate::validation::sequence_name(codes), by_source, threshold))
        .collect();
    qualifying.sort_by(|a, b| b.support.cmp(&a.support).then_with(|| a.name.cmp(&b.name)));
    let columns = ["sequence", "circular_variance", "support", "dataset", "angle_rad", "angle_deg", "n"];
    let rows: Vec<Vec<String>> = qualifying
        .iter()
        .flat_map(|sequence| {
            sequence.directions.iter().map(|(source, angle, n)| {
                let numbers = [*angle, angle.to_degrees()].map(|angle| angle.to_string());
                let head = [
                    sequence.name.clone(),
                    sequence.variance.to_string(),
                    sequence.support.to_string(),
                    source.clone(),
                ];
                head.into_iter().chain(numbers).chain([n.to_string()]).collect()
            })
        })
        .collect();
    output.csv("consistency", &columns.map(str::to_owned), &rows)?;
    let support: usize = qualifying.iter().map(|sequence| sequence.support).sum();
    let weighted: f64 = qualifying.iter().map(|sequence| sequence.variance * sequence.support as f64).sum();
    let mean = (support > 0).then(|| weighted / support as f64);
    output.json(
        "metrics",
        &json!({
            "mean_weighted_angular_variance": mean,
            "num_qualifying_tokens": qualifying.len(),
            "threshold": threshold,
        }),
    )?;
    output.readme(&format!(
        "Circular variance of a sequence: 1 - length of the mean of the unit vectors of its mean direction in each dataset with {threshold} or \
         more moving samples of it; 0 = the same direction everywhere. Sequences with such a direction in two datasets qualify."
    ))?;
    match mean {
        Some(mean) => output.note(format!("{} sequences qualify; mean variance {mean:.3}", qualifying.len())),
        None => output.note("no sequence has enough moving samples in two datasets"),
    }
    let shown = &qualifying[..MAX_BARS.min(qualifying.len())];
    if !shown.is_empty() {
        let chart = BarChart {
            title: "Circular variance of the most frequent sequences".into(),
            x_label: "sequence".into(),
            y_label: "circular variance".into(),
            values: shown.iter().map(|sequence| sequence.variance).collect(),
            names: shown.iter().map(|sequence| sequence.name.clone()).collect(),
            reference: mean.map(|mean| ("mean".into(), mean)),
        };
        output.image("consistency", &render_bars("consistency", &chart)?)?;
    }
    Ok(())
}

fn qualify(name: String, by_source: BTreeMap<&str, Vec<&Record>>, threshold: usize) -> Option<Qualifying> {
    let directions: Vec<(String, f64, usize)> = by_source
        .into_iter()
        .filter(|(_, records)| records.len() >= threshold)
        .map(|(source, records)| (source.to_owned(), mean_angle(&records), records.len()))
        .collect();
    if directions.len() < 2 {
        return None;
    }
    let num = directions.len() as f64;
    let (x, y) = directions.iter().fold((0.0, 0.0), |(x, y), (_, angle, _)| (x + angle.cos(), y + angle.sin()));
    let support = directions.iter().map(|(.., n)| n).sum();
    Some(Qualifying { name, variance: 1.0 - (x / num).hypot(y / num), support, directions })
}

/// Direction of the mean of the samples' unit vectors.
fn mean_angle(records: &[&Record]) -> f64 {
    let (x, y) = records.iter().fold((0.0, 0.0), |(x, y), record| {
        let angle = record.motion.1.atan2(record.motion.0);
        (x + angle.cos(), y + angle.sin())
    });
    y.atan2(x)
}
