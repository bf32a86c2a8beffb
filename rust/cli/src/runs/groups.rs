//! Runs beside each other: their settings, the values that count, groups over seeds, and which is best.

use super::{
    find::{self, LeftOut},
    record::{Run, is_better},
    settings::{self, SEED, Settings},
    table::ComparedOptions,
    values::{self, At, Measured, Statistics},
};
use anyhow::Result;
use hlrp_config::Problem;
use hlrp_track::metrics::{Better, MetricsRow};
use std::{cmp::Ordering, path::PathBuf, process::ExitCode};

/// Settings that are shown where the user names none.
const MAX_KEYS: usize = 6;

/// Runs that are compared.
pub(super) struct Compared {
    /// By name.
    pub(super) entries: Vec<Entry>,
    pub(super) metrics: Vec<Metric>,
    /// Settings that are shown.
    pub(super) keys: Vec<String>,
    /// Settings that differ and are not shown.
    pub(super) hidden_keys: Vec<String>,
    /// Settings that make a group.
    pub(super) group_keys: Vec<String>,
    /// By stage, the best first.
    pub(super) groups: Vec<Group>,
    /// Whether the user asked for groups.
    pub(super) is_grouped: bool,
    pub(super) at: At,
    /// Exit code of the command: 1 where runs are left out because they cannot be read.
    pub(super) exit_code: ExitCode,
}

/// A metric that is compared.
pub(super) struct Metric {
    pub(super) name: String,
    pub(super) better: Option<Better>,
}

/// One run.
pub(super) struct Entry {
    pub(super) run: Run,
    pub(super) settings: Settings,
    pub(super) rows: Vec<MetricsRow>,
    /// Of each metric.
    pub(super) values: Vec<Option<Measured>>,
}

/// Runs with the same settings, apart from the seed.
#[derive(Clone)]
pub(super) struct Group {
    /// Of each group key.
    pub(super) values: Vec<Option<String>>,
    /// Indices of its runs, the best first.
    pub(super) members: Vec<usize>,
    /// Of each metric.
    pub(super) statistics: Vec<Option<Statistics>>,
}

impl Compared {
    /// The runs in `dirs` and below; those with a damaged file are left out with a warning.
    ///
    /// # Errors
    /// There is no run that can be read, or none has a metric or setting of the options.
    pub(super) fn of(dirs: &[PathBuf], options: &ComparedOptions) -> Result<Self> {
        let mut left_out = LeftOut::default();
        let found = find::some_runs(dirs, &mut left_out)?;
        let read = |run: Run| Ok((settings::of(&run)?, run.metrics()?, run));
        let read: Vec<_> = found.into_iter().filter_map(|run| left_out.keep(read(run))).collect();
        let exit_code = left_out.report(read.len())?;
        let (mut runs, mut settings, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        for (of_run, metrics, run) in read {
            settings.push(of_run);
            rows.push(metrics);
            runs.push(run);
        }
        let all: Vec<&Settings> = settings.iter().collect();
        settings::refuse_unknown("--keys", &options.keys, &all)?;
        settings::refuse_unknown("--group-by", &options.group_by, &all)?;
        let metrics = metrics(&runs, &rows, options)?;
        let differing = settings::differing(runs.iter().map(Run::stage).zip(&settings));
        let (keys, hidden_keys) = match options.keys.as_slice() {
            [] if differing.len() > MAX_KEYS => {
                let (seed, others): (Vec<_>, Vec<_>) = differing.iter().cloned().partition(|key| key == SEED);
                let shown = MAX_KEYS - seed.len();
                (others[..shown].iter().cloned().chain(seed).collect(), others[shown..].to_vec())
            }
            [] => (differing.clone(), Vec::new()),
            given => (given.to_vec(), differing.iter().filter(|key| !given.contains(key)).cloned().collect()),
        };
        // Averages are over seeds: runs that differ in any other setting are in different groups, unless the user says otherwise.
        let is_grouped = !options.group_by.is_empty();
        let group_keys = match is_grouped {
            true => options.group_by.clone(),
            false => {
                let others = differing.iter().filter(|key| !options.keys.contains(key));
                options.keys.iter().chain(others).filter(|key| *key != SEED).cloned().collect()
            }
        };
        let entries: Vec<Entry> = runs
            .into_iter()
            .zip(settings)
            .zip(rows)
            .map(|((run, settings), rows)| {
                let values = values_of(&rows, &metrics, options.at);
                Entry { run, settings, rows, values }
            })
            .collect();
        let groups = groups(&entries, &group_keys, &metrics);
        Ok(Self { entries, metrics, keys, hidden_keys, group_keys, groups, is_grouped, at: options.at, exit_code })
    }

    /// Whether a group has several runs.
    pub(super) fn has_seeds(&self) -> bool {
        self.groups.iter().any(|group| group.members.len() > 1)
    }

    /// The runs, those of a group beside each other, the best first.
    pub(super) fn entries_in_order(&self) -> Vec<&Entry> {
        self.groups.iter().flat_map(|group| group.members.iter().map(|&index| &self.entries[index])).collect()
    }

    /// Whether the runs are of several stages, whose values do not compare.
    pub(super) fn has_stages(&self) -> bool {
        self.entries.iter().any(|entry| entry.run.stage() != self.entries[0].run.stage())
    }

    /// Whether no run of its stage has a better value of metric `index` than `entry`.
    pub(super) fn is_best_run(&self, index: usize, entry: &Entry) -> bool {
        let value = |entry: &Entry| entry.values[index].map(|measured| measured.value);
        let same_stage = self.entries.iter().filter(|other| other.run.stage() == entry.run.stage());
        self.is_best(index, value(entry), same_stage.filter_map(value))
    }

    /// Whether no group of its stage has a better mean of metric `index` than `group`.
    pub(super) fn is_best_group(&self, index: usize, group: &Group) -> bool {
        let mean = |group: &Group| group.statistics[index].map(|statistics| statistics.mean);
        let stage = |group: &Group| self.entries[group.members[0]].run.stage();
        let same_stage = self.groups.iter().filter(|other| stage(other) == stage(group));
        self.is_best(index, mean(group), same_stage.filter_map(mean))
    }

    /// The only value of all is not marked.
    fn is_best(&self, index: usize, value: Option<f64>, all: impl Iterator<Item = f64>) -> bool {
        let (Some(better), Some(value)) = (self.metrics[index].better, value) else { return false };
        let all: Vec<f64> = all.collect();
        value.is_finite() && all.len() > 1 && !all.iter().any(|other| is_better(better, *other, value))
    }
}

fn metrics(runs: &[Run], rows: &[Vec<MetricsRow>], options: &ComparedOptions) -> Result<Vec<Metric>> {
    let names = match options.metric.as_slice() {
        [] => vec![values::default_metric(runs, rows)?],
        given => given.to_vec(),
    };
    for name in &names {
        values::refuse_unknown(name, rows)?;
    }
    let mut metrics: Vec<Metric> =
        names.into_iter().map(|name| Metric { better: values::direction(runs, &name), name }).collect();
    if let Some(direction) = options.better {
        let declared = metrics[0].better;
        let given = Better::from(direction);
        if declared.is_some_and(|declared| declared != given) {
            let message = format!("the runs declare the other direction of {}", metrics[0].name);
            return Err(Problem::new("--better", message, "leave it out").into());
        }
        metrics[0].better = Some(given);
    }
    Ok(metrics)
}

/// The value of the first metric that counts, and those of the others at the same step; the newest of each with `--at last`.
fn values_of(rows: &[MetricsRow], metrics: &[Metric], at: At) -> Vec<Option<Measured>> {
    let first = values::counted(rows, &metrics[0].name, metrics[0].better, at);
    let other = |metric: &Metric| match (first, at) {
        (Some(first), At::Best) => values::at_step(rows, &metric.name, first.step),
        _ => values::counted(rows, &metric.name, None, At::Last),
    };
    std::iter::once(first).chain(metrics[1..].iter().map(other)).collect()
}

fn groups(entries: &[Entry], keys: &[String], metrics: &[Metric]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let values: Vec<Option<String>> = keys.iter().map(|key| entry.settings.get(key).cloned()).collect();
        let is_same =
            |group: &&mut Group| group.values == values && entries[group.members[0]].run.stage() == entry.run.stage();
        match groups.iter_mut().find(is_same) {
            Some(group) => group.members.push(index),
            None => groups.push(Group { values, members: vec![index], statistics: Vec::new() }),
        }
    }
    let better = metrics[0].better;
    let value = |&index: &usize| entries[index].values[0].map(|measured| measured.value);
    for group in &mut groups {
        group.members.sort_by(|left, right| order(better, value(left), value(right)));
        group.statistics = (0..metrics.len())
            .map(|metric| {
                let values = group.members.iter().filter_map(|&index| Some(entries[index].values[metric]?.value));
                Statistics::of(&values.collect::<Vec<_>>())
            })
            .collect();
    }
    let mean = |group: &Group| group.statistics[0].map(|statistics| statistics.mean);
    let stage = |group: &Group| entries[group.members[0]].run.stage();
    groups.sort_by(|left, right| stage(left).cmp(stage(right)).then_with(|| order(better, mean(left), mean(right))));
    groups
}

/// The better one first, then what has no value; without a direction all are equal.
fn order(better: Option<Better>, left: Option<f64>, right: Option<f64>) -> Ordering {
    let rank = |value: Option<f64>| match value {
        Some(value) if value.is_finite() => 0,
        Some(_) => 1,
        None => 2,
    };
    rank(left).cmp(&rank(right)).then_with(|| match (better, left, right) {
        (Some(better), Some(left), Some(right)) if is_better(better, left, right) => Ordering::Less,
        (Some(better), Some(left), Some(right)) if is_better(better, right, left) => Ordering::Greater,
        _ => Ordering::Equal,
    })
}
