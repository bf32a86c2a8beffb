//! Whether two runs recorded the same.

use crate::runs::Run;
use anyhow::Result;
use hlrp_track::{
    metrics::{MetricsRow, is_time_field},
    run::{Artifact, RunStatus},
};
use std::collections::{BTreeMap, BTreeSet};

/// The answer, in a sentence.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Match { text: String },
    Drift { text: String },
}

impl Verdict {
    pub(super) fn is_match(&self) -> bool {
        matches!(self, Self::Match { .. })
    }

    /// `match` or `drift`.
    pub(super) fn name(&self) -> &'static str {
        if self.is_match() { "match" } else { "drift" }
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Self::Match { text } | Self::Drift { text } => text,
        }
    }
}

/// A metric that differs by more than the tolerance.
#[derive(Debug, PartialEq)]
pub(super) struct Difference {
    pub(super) metric: String,
    /// The first step at which it does.
    pub(super) step: u64,
    /// The values of that step; none where it is not recorded.
    pub(super) then: Option<f64>,
    pub(super) now: Option<f64>,
    /// Over all steps; none where a value is missing or not finite.
    pub(super) largest: Option<f64>,
}

/// Everything that two runs recorded, beside each other. What depends on the clock is left out.
#[derive(Debug)]
pub(super) struct Comparison {
    pub(super) verdict: Verdict,
    /// By first step.
    pub(super) differences: Vec<Difference>,
    pub(super) num_values: usize,
    /// Metrics that the run did not record then, as an older program, and that say nothing about a drift.
    pub(super) new_metrics: Vec<String>,
}

impl Comparison {
    /// # Errors
    /// Metrics of one of the runs are damaged.
    pub(super) fn of(then: &Run, now: &Run, tolerance: f64) -> Result<Self> {
        let (rows, new_rows) = (then.metrics()?, now.metrics()?);
        let is_whole = then.status() == RunStatus::Finished;
        let weights = if is_whole { Weights::of(then, now) } else { Weights::default() };
        Ok(Self::of_rows(&rows, &new_rows, &weights, tolerance))
    }

    fn of_rows(rows: &[MetricsRow], new_rows: &[MetricsRow], weights: &Weights, tolerance: f64) -> Self {
        // A run that was stopped is compared as far as it went.
        let last = rows.iter().map(|row| row.step).max().unwrap_or(0);
        let (then, now) = (values(rows, last), values(new_rows, last));
        let mut differences: BTreeMap<&str, Difference> = BTreeMap::new();
        let (mut largest, mut num_unequal) = (0.0_f64, 0_usize);
        let metrics: BTreeSet<&str> = then.keys().map(|(_, metric, _)| *metric).collect();
        let (more, new): (Vec<&Key<'_>>, Vec<&Key<'_>>) =
            now.keys().filter(|key| !then.contains_key(*key)).partition(|(_, metric, _)| metrics.contains(metric));
        let new_metrics: BTreeSet<&str> = new.into_iter().map(|(_, metric, _)| *metric).collect();
        let keys = then.keys().chain(more);
        for key @ (step, metric, _) in keys {
            let (then, now) = (then.get(key).copied(), now.get(key).copied());
            if then.map(f64::to_bits) == now.map(f64::to_bits) {
                continue;
            }
            num_unequal += 1;
            let relative = then.zip(now).map(|(then, now)| relative(then, now));
            if let Some(relative) = relative.filter(|relative| *relative <= tolerance) {
                largest = largest.max(relative);
                continue;
            }
            let relative = relative.filter(|relative| relative.is_finite());
            let found = differences.entry(metric).or_insert_with(|| Difference {
                metric: (*metric).to_owned(),
                step: *step,
                then,
                now,
                largest: Some(0.0),
            });
            if *step < found.step {
                (found.step, found.then, found.now) = (*step, then, now);
            }
            found.largest = found.largest.zip(relative).map(|(largest, relative)| largest.max(relative));
        }
        let mut differences: Vec<Difference> = differences.into_values().collect();
        differences.sort_by(|left, right| (left.step, &left.metric).cmp(&(right.step, &right.metric)));
        let num_values = then.len();
        let compared = format!("{num_values} values of {} metrics up to step {last}", metrics.len());
        let verdict = match differences.first() {
            Some(first) => Verdict::Drift {
                text: format!(
                    "{} differs from step {} on; {} of {} metrics differ, {num_unequal} of {num_values} values",
                    first.metric,
                    first.step,
                    differences.len(),
                    metrics.len()
                ),
            },
            None if num_unequal == 0 && !weights.changed.is_empty() => Verdict::Drift {
                text: format!("all {compared} are equal, but the weights are not ({})", weights.changed.join(", ")),
            },
            None if num_unequal == 0 => {
                let and = match weights.equal.is_empty() {
                    true => String::new(),
                    false => format!(", and the weights ({}),", weights.equal.join(", ")),
                };
                Verdict::Match { text: format!("bit-exact: {compared}{and} are equal") }
            }
            None => Verdict::Match {
                text: format!(
                    "within {tolerance:e}: {compared}, of which {num_unequal} differ, by {largest:.1e} of their size at most"
                ),
            },
        };
        let new_metrics = new_metrics.into_iter().map(str::to_owned).collect();
        Self { verdict, differences, num_values, new_metrics }
    }
}

/// Step, metric, and the how-manieth value of it at that step.
type Key<'a> = (u64, &'a str, usize);

fn values(rows: &[MetricsRow], last: u64) -> BTreeMap<Key<'_>, f64> {
    let mut values = BTreeMap::new();
    for row in rows.iter().filter(|row| row.step <= last) {
        for (name, value) in row.values.iter().filter(|(name, _)| !is_time_field(name)) {
            let mut key = (row.step, name.as_str(), 0);
            while values.contains_key(&key) {
                key.2 += 1;
            }
            values.insert(key, *value);
        }
    }
    values
}

/// The difference as a fraction of the larger value; infinite where one is not a number and the other is.
fn relative(then: f64, now: f64) -> f64 {
    if then == now || (then.is_nan() && now.is_nan()) {
        return 0.0;
    }
    let difference = (then - now).abs() / then.abs().max(now.abs());
    if difference.is_nan() { f64::INFINITY } else { difference }
}

/// The weights that both runs left, by what they are: `checkpoints/last`, `artifacts/best`, `policy`.
#[derive(Debug, Default)]
struct Weights {
    equal: Vec<String>,
    changed: Vec<String>,
}

impl Weights {
    fn of(then: &Run, now: &Run) -> Self {
        let now = digests(now);
        let mut weights = Self::default();
        for (role, then) in digests(then) {
            match now.get(&role) {
                Some(now) if *now == then => weights.equal.push(role),
                Some(_) => weights.changed.push(role),
                None => {}
            }
        }
        weights
    }
}

/// The digests of the weights that a run left, as it records them; of a run of format 2, which does not, that of its last checkpoint.
fn digests(run: &Run) -> BTreeMap<String, String> {
    let recorded = run.last_session().map(|session| session.outputs.clone()).unwrap_or_default();
    let last = recorded.is_empty().then(|| Artifact::of("checkpoints/last", run.path.as_path()));
    recorded.into_iter().chain(last).filter_map(|output| Some((output.role, output.sha256?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(values: &[(u64, f64)]) -> Vec<MetricsRow> {
        let row = |&(step, value): &(u64, f64)| MetricsRow {
            step,
            time: step as f64,
            values: vec![("train/loss".to_owned(), value), ("perf/x".to_owned(), step as f64 * value)],
        };
        values.iter().map(row).collect()
    }

    fn verdict(now: &[(u64, f64)], tolerance: f64) -> (bool, Option<u64>) {
        let found = Comparison::of_rows(&rows(&[(1, 2.0), (2, 1.0)]), &rows(now), &Weights::default(), tolerance);
        (matches!(found.verdict, Verdict::Match { .. }), found.differences.first().map(|found| found.step))
    }

    #[test]
    fn equal_bits_match_and_one_other_bit_drifts() {
        assert_eq!(verdict(&[(1, 2.0), (2, 1.0)], 0.0), (true, None));
        assert_eq!(verdict(&[(1, 2.0), (2, 1.0_f64.next_up())], 0.0), (false, Some(2)));
        assert_eq!(verdict(&[(1, 2.0), (2, 1.0_f64.next_up())], 1e-9), (true, None));
        assert_eq!(verdict(&[(1, 2.2), (2, 1.0)], 0.05), (false, Some(1)));
    }

    #[test]
    fn what_is_missing_or_not_a_number_drifts() {
        assert_eq!(verdict(&[(1, 2.0)], 0.5), (false, Some(2)));
        assert_eq!(verdict(&[(1, f64::NAN), (2, 1.0)], 0.5), (false, Some(1)));
        assert_eq!(verdict(&[(1, 2.0), (2, 1.0), (3, 9.0)], 0.0), (true, None), "beyond the end of the first run");
    }

    #[test]
    fn a_metric_that_a_newer_program_adds_is_no_drift() {
        let mut now = rows(&[(1, 2.0)]);
        now[0].values.push(("val/new".to_owned(), 3.0));
        let found = Comparison::of_rows(&rows(&[(1, 2.0)]), &now, &Weights::default(), 0.0);
        assert!(found.verdict.is_match());
        assert_eq!(found.new_metrics, ["val/new"]);
        let lost = Comparison::of_rows(&now, &rows(&[(1, 2.0)]), &Weights::default(), 0.0);
        assert_eq!(lost.differences.len(), 1, "one that is not recorded any more is");
    }

    #[test]
    fn equal_metrics_with_other_weights_drift() {
        let run = rows(&[(1, 2.0)]);
        let weights = Weights { equal: vec!["checkpoints/best".into()], changed: vec!["checkpoints/last".into()] };
        let found = Comparison::of_rows(&run, &run, &weights, 0.0);
        assert!(
            matches!(found.verdict, Verdict::Drift { ref text } if text.contains("but the weights are not (checkpoints/last)"))
        );
        let equal = Weights { changed: Vec::new(), ..weights };
        let found = Comparison::of_rows(&run, &run, &equal, 0.0);
        assert!(
            matches!(found.verdict, Verdict::Match { ref text } if text.contains("and the weights (checkpoints/best),"))
        );
    }
}
