//! The values that a metric takes in a run, which of them counts, and statistics over several runs.

use super::record::{Run, is_better};
use anyhow::Result;
use clap::ValueEnum;
use hlrp_config::{Problem, ProblemKind, suggest};
use hlrp_track::metrics::{Better, MetricSpec, MetricsRow, series};
use serde::Serialize;
use std::collections::BTreeSet;

/// Which value of a metric counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum At {
    /// The best of the run; the newest where the metric has no better direction.
    Best,
    /// The newest.
    Last,
}

/// A value, and the step at which it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Measured {
    pub(super) value: f64,
    pub(super) step: u64,
}

/// Statistics over runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Statistics {
    pub(crate) mean: f64,
    /// Sample standard deviation, with n - 1; none of a single value.
    pub(crate) std: Option<f64>,
    pub(crate) num: usize,
}

impl Statistics {
    /// Of these values; none without one.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let num = values.len();
        let mean = values.iter().sum::<f64>() / num as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let std = (num > 1).then(|| (squares / (num - 1) as f64).sqrt());
        (num > 0).then_some(Self { mean, std, num })
    }
}

/// Which direction of a metric is better: as the first run says that declares it.
pub(super) fn direction(runs: &[Run], metric: &str) -> Option<Better> {
    runs.iter().find_map(|run| run.spec(metric)?.better)
}

/// The value of `metric` that counts. A value that is not finite counts only if there is no other.
pub(super) fn counted(rows: &[MetricsRow], metric: &str, better: Option<Better>, at: At) -> Option<Measured> {
    let values = || series(rows, metric).into_iter().map(|(step, value)| Measured { value, step });
    let newest = values().next_back();
    let Some(better) = better.filter(|_| at == At::Best) else { return newest };
    let finite = values().filter(|measured| measured.value.is_finite());
    let best = finite.reduce(|best, next| if is_better(better, next.value, best.value) { next } else { best });
    best.or(newest)
}

/// The value of `metric` at `step`.
pub(super) fn at_step(rows: &[MetricsRow], metric: &str, step: u64) -> Option<Measured> {
    let value = rows.iter().filter(|row| row.step == step).filter_map(|row| row.get(metric)).next_back();
    value.map(|value| Measured { value, step })
}

/// Names of the metrics in these rows.
pub(super) fn names(rows: &[MetricsRow]) -> BTreeSet<&str> {
    rows.iter().flat_map(|row| row.values.iter().map(|(name, _)| name.as_str())).collect()
}

/// Refuses a metric that no run records.
///
/// # Errors
/// [`Problem`] with the closest name.
pub(super) fn refuse_unknown(metric: &str, rows: &[Vec<MetricsRow>]) -> Result<(), Problem> {
    let known: BTreeSet<&str> = rows.iter().flat_map(|rows| names(rows)).collect();
    if known.contains(metric) {
        return Ok(());
    }
    let same_name = known.iter().find(|name| name.rsplit('/').next() == metric.rsplit('/').next());
    let close = same_name.copied().or_else(|| suggest::closest(metric, known.iter().copied()));
    let hint = match close {
        Some(close) => format!("did you mean '{close}'?"),
        None if known.is_empty() => "these runs have recorded no metric".to_owned(),
        None => format!("they record {}", listed(&known)),
    };
    Err(Problem::of(ProblemKind::UnknownKey, format!("--metric: no run records '{metric}'")).hint(hint))
}

/// The metric by which runs are compared where none is named: the monitored one if a run has it, else the first declared one that
/// has a better direction and a value.
///
/// # Errors
/// No run has one.
pub(super) fn default_metric(runs: &[Run], rows: &[Vec<MetricsRow>]) -> Result<String> {
    let is_recorded = |name: &str| rows.iter().any(|rows| names(rows).contains(name));
    for run in runs {
        if let Some(score) = run.score(&[])?
            && is_recorded(&score.metric)
        {
            return Ok(score.metric);
        }
    }
    let ranked = |spec: &&MetricSpec| spec.better.is_some() && is_recorded(&spec.name);
    let first = runs.iter().flat_map(|run| &run.manifest.metrics).find(ranked);
    first.map(|spec| spec.name.clone()).ok_or_else(|| {
        let known: BTreeSet<&str> = rows.iter().flat_map(|rows| names(rows)).collect();
        let hint = if known.is_empty() { "these runs have recorded nothing".to_owned() } else { listed(&known) };
        let message = "--metric: these runs declare no metric that ranks them, so name one";
        Problem::of(ProblemKind::Value, message).hint(format!("they record {hint}")).into()
    })
}

/// The first few names.
pub(super) fn listed(names: &BTreeSet<&str>) -> String {
    const SHOWN: usize = 12;
    let shown = names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{shown}, … ({} in all)", names.len()) } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(values: &[(u64, f64)]) -> Vec<MetricsRow> {
        let row = |&(step, value): &(u64, f64)| MetricsRow { step, time: 0.0, values: vec![("x".to_owned(), value)] };
        values.iter().map(row).collect()
    }

    #[test]
    fn the_best_value_counts_and_nan_only_where_there_is_no_other() {
        let run = rows(&[(1, 3.0), (2, f64::NAN), (3, 1.0), (4, 2.0)]);
        let value = |better, at| counted(&run, "x", better, at).map(|measured| (measured.step, measured.value));
        assert_eq!(value(Some(Better::Lower), At::Best), Some((3, 1.0)));
        assert_eq!(value(Some(Better::Higher), At::Best), Some((1, 3.0)));
        assert_eq!(value(None, At::Best), Some((4, 2.0)));
        assert_eq!(value(Some(Better::Lower), At::Last), Some((4, 2.0)));
        let broken = counted(&rows(&[(1, f64::NAN)]), "x", Some(Better::Lower), At::Best);
        assert!(broken.is_some_and(|measured| measured.value.is_nan()));
        assert_eq!(counted(&run, "y", None, At::Last), None);
    }

    #[test]
    fn deviations_are_those_of_a_sample() {
        let of = |values: &[f64]| Statistics::of(values).map(|found| (found.mean, found.std, found.num));
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[2.0]), Some((2.0, None, 1)));
        assert_eq!(of(&[1.0, 3.0]), Some((2.0, Some(2f64.sqrt()), 2)));
    }
}
