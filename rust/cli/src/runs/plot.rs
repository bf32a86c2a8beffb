//! `hlrp runs plot`: curves of several runs in one image.

use super::{
    groups::{Compared, Group},
    settings::in_short,
    table::{ComparedOptions, group_name, refuse_more_curves_than},
    values::listed,
};
use anyhow::Result;
use clap::Args;
use hlrp_config::{Problem, ProblemKind};
use hlrp_schema::refuse_named_output;
use hlrp_track::{
    console,
    metrics::{MetricSpec, MetricsRow, series},
    plot::{Curve, CurveChart, draw_curves},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::ExitCode,
};

const EXAMPLES: &str = "\
Examples:
  hlrp runs plot runs/sweep --metric val/loss                             a curve for each run
  hlrp runs plot runs/sweep --metric val/loss --group-by training.optimizer.lr --log-y
  hlrp runs plot runs/a runs/b --metric train/loss --out loss.png";

/// Curves in one plot that can still be told apart: seven colours, solid, dashed and dotted.
pub(super) const MAX_CURVES: usize = 21;
/// Settings in the name of a curve.
const MAX_NAMED_KEYS: usize = 3;

/// Options of `hlrp runs plot`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PlotOptions {
    /// Run directories, or folders of runs; by default paths.runs_dir.
    #[arg(value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// The metric to draw; by default the score.
    #[arg(long, value_name = "METRIC")]
    metric: Option<String>,
    /// Draw the mean of the runs that have equal values of these settings, and the range from the lowest to the highest run.
    #[arg(long, value_name = "KEY", value_delimiter = ',')]
    group_by: Vec<String>,
    /// Logarithmic vertical axis; values of 0 and below are left out.
    #[arg(long)]
    log_y: bool,
    /// Logarithmic axis of the steps.
    #[arg(long)]
    log_x: bool,
    /// The image.
    #[arg(long, value_name = "FILE.png", default_value = "plot.png")]
    out: PathBuf,
}

pub(super) fn plot(options: &PlotOptions) -> Result<ExitCode> {
    if options.out.extension().is_none_or(|extension| extension != "png") {
        let message = format!("{} is not the name of a PNG file", options.out.display());
        return Err(Problem::new("--out", message, "--out plot.png").into());
    }
    refuse_named_output("--out", &options.out)?;
    let metric: Vec<String> = options.metric.iter().cloned().collect();
    let compared = Compared::of(&options.dirs, &ComparedOptions::of_metrics(metric, options.group_by.clone()))?;
    let metric = &compared.metrics[0].name;
    let (curves, notes) = curves(&compared, metric)?;
    refuse_more_curves_than(MAX_CURVES, curves.len())?;
    let chart = chart(&compared, metric, curves, (options.log_x, options.log_y));
    draw_curves(&options.out, &chart)?;
    notes.iter().for_each(|note| console::print(note));
    console::print(&format!("{} has {} curves of {metric}", options.out.display(), chart.curves.len()));
    Ok(compared.exit_code)
}

/// A chart of curves of `metric`.
pub(super) fn chart(compared: &Compared, metric: &str, curves: Vec<Curve>, (log_x, log_y): (bool, bool)) -> CurveChart {
    let spec = compared.entries.iter().find_map(|entry| entry.run.spec(metric));
    let label = spec.map_or_else(|| MetricSpec::detail(metric).title(), MetricSpec::title);
    CurveChart { title: label, y_label: metric.to_owned(), log_x, log_y, curves }
}

/// The curves of `metric`, of runs or of groups, and what a reader must know about them.
///
/// # Errors
/// No run records the metric, or the runs of a group share no step.
pub(super) fn curves(compared: &Compared, metric: &str) -> Result<(Vec<Curve>, Vec<String>)> {
    if compared.is_grouped { groups(compared, metric) } else { Ok(runs(compared, metric)) }
}

fn runs(compared: &Compared, metric: &str) -> (Vec<Curve>, Vec<String>) {
    // The settings that are shown do not tell stages apart.
    let use_settings = (1..=MAX_NAMED_KEYS).contains(&compared.keys.len())
        && compared.hidden_keys.is_empty()
        && !compared.has_stages();
    let name = |index: usize| {
        let entry = &compared.entries[index];
        if use_settings { in_short(&compared.keys, &entry.settings) } else { entry.run.name.clone() }
    };
    let names: Vec<String> = (0..compared.entries.len()).map(name).collect();
    let (mut curves, mut without) = (Vec::new(), BTreeSet::new());
    for (index, entry) in compared.entries.iter().enumerate() {
        let points = series(&entry.rows, metric);
        let is_clear = names.iter().filter(|name| **name == names[index]).count() == 1;
        let name = if is_clear { &names[index] } else { &entry.run.name };
        if points.is_empty() {
            without.insert(entry.run.name.as_str());
        } else {
            curves.push(Curve::new(name, points));
        }
    }
    (curves, left_out(metric, &without))
}

fn groups(compared: &Compared, metric: &str) -> Result<(Vec<Curve>, Vec<String>)> {
    let (mut curves, mut notes, mut all_without) = (Vec::new(), Vec::new(), BTreeSet::new());
    for group in &compared.groups {
        let (members, without): (Vec<usize>, Vec<usize>) =
            group.members.iter().partition(|&&index| !series(&compared.entries[index].rows, metric).is_empty());
        let name = |index: &usize| compared.entries[*index].run.name.as_str();
        all_without.extend(without.iter().map(name));
        if members.is_empty() {
            continue;
        }
        let rows: Vec<&[MetricsRow]> = members.iter().map(|&index| compared.entries[index].rows.as_slice()).collect();
        let shared = mean_and_range(&rows, metric);
        if shared.is_empty() {
            let names = members.iter().map(name).collect::<Vec<_>>();
            let message =
                format!("the runs {} record {metric} at no common step", listed(&names.into_iter().collect()));
            let hint = "choose settings that keep them apart, or leave --group-by out";
            return Err(Problem::of(ProblemKind::Value, message).hint(hint).into());
        }
        let last = |rows: &&[MetricsRow]| series(rows, metric).last().map(|point| point.0);
        let (shortest, longest) = (rows.iter().filter_map(last).min(), rows.iter().filter_map(last).max());
        let group_name = group_name(compared, &Group { members: members.clone(), ..group.clone() });
        if shortest < longest {
            let step = shortest.unwrap_or_default();
            notes.push(format!("{group_name}: a run ends at step {step}; mean and range end there"));
        }
        let band = if members.len() > 1 {
            shared.iter().map(|&(step, _, low, high)| (step, low, high)).collect()
        } else {
            Vec::new()
        };
        curves.push(Curve {
            name: group_name,
            points: shared.iter().map(|&(step, mean, ..)| (step, mean)).collect(),
            band,
        });
    }
    notes.extend(left_out(metric, &all_without));
    Ok((curves, notes))
}

/// Names the runs that have no curve.
fn left_out(metric: &str, runs: &BTreeSet<&str>) -> Vec<String> {
    if runs.is_empty() {
        return Vec::new();
    }
    vec![format!("left out, because they record no {metric}: {}", listed(runs))]
}

/// Step, mean, lowest and highest value of the runs at each step that all of them record.
fn mean_and_range(runs: &[&[MetricsRow]], metric: &str) -> Vec<(u64, f64, f64, f64)> {
    let by_step: Vec<BTreeMap<u64, f64>> = runs.iter().map(|rows| series(rows, metric).into_iter().collect()).collect();
    let steps: BTreeSet<u64> = by_step.iter().flat_map(|run| run.keys().copied()).collect();
    let of_step = |step: u64| {
        let values: Option<Vec<f64>> = by_step.iter().map(|run| run.get(&step).copied()).collect();
        let values = values?;
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Some((step, mean, low, high))
    };
    steps.into_iter().filter_map(of_step).collect()
}
