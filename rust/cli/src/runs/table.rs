//! `hlrp runs table`: one row for each run, and the mean over seeds.

use super::{
    groups::{Compared, Entry, Group},
    record::status_name,
    settings::{SEED, in_short},
    values::{At, Measured, listed, names},
};
use anyhow::Result;
use clap::{Args, ValueEnum};
use hlrp_config::Problem;
use hlrp_track::{
    console::{self, format_value},
    metrics::Better,
    table::ResultTable,
};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::ExitCode,
};

const EXAMPLES: &str = "\
Examples:
  hlrp runs table runs/sweep                                          the settings that differ, and the score
  hlrp runs table runs --metric val/loss --keys model.dim,training.optimizer.lr --format markdown
  hlrp runs table runs --metric val/loss,val/num_unique_codes --group-by training.optimizer.lr
  hlrp runs table runs --metric val/loss --at last --format csv > table.csv";

/// Options of `hlrp runs table`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TableOptions {
    #[command(flatten)]
    pub(super) compared: ComparedOptions,
    /// Form of the table.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Which runs are compared, and by what.
#[derive(Debug, Clone, Args)]
pub(crate) struct ComparedOptions {
    /// Run directories, or folders of runs; by default paths.runs_dir.
    #[arg(value_name = "DIR")]
    pub(super) dirs: Vec<PathBuf>,
    /// Metrics to compare. The first one ranks the runs; the others are those of the same step. By default the score.
    #[arg(long, value_name = "METRIC", value_delimiter = ',')]
    pub(super) metric: Vec<String>,
    /// Settings to show; by default those in which the runs differ.
    #[arg(long, value_name = "KEY", value_delimiter = ',')]
    pub(super) keys: Vec<String>,
    /// Combine the runs that have equal values of these settings; by default those that differ in the seed only.
    #[arg(long, value_name = "KEY", value_delimiter = ',')]
    pub(super) group_by: Vec<String>,
    /// Which value of a run counts.
    #[arg(long, value_enum, default_value_t = At::Best)]
    pub(super) at: At,
    /// Which direction of the first metric is better, where the runs do not declare it.
    #[arg(long, value_enum)]
    pub(super) better: Option<Direction>,
}

/// Which direction is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Direction {
    Lower,
    Higher,
}

impl From<Direction> for Better {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Lower => Self::Lower,
            Direction::Higher => Self::Higher,
        }
    }
}

impl ComparedOptions {
    /// The options that compare given runs by these metrics.
    pub(super) fn of_metrics(metric: Vec<String>, group_by: Vec<String>) -> Self {
        Self { dirs: Vec::new(), metric, keys: Vec::new(), group_by, at: At::Best, better: None }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Aligned columns.
    Text,
    /// A Markdown table.
    Markdown,
    /// Comma-separated values, all digits.
    Csv,
    /// JSON, all digits.
    Json,
}

pub(super) fn table(options: &TableOptions) -> Result<ExitCode> {
    let compared = Compared::of(&options.compared.dirs, &options.compared)?;
    let text = match options.format {
        Format::Text => text(&compared, ResultTable::to_text, ("*", ""), "* marks"),
        Format::Markdown => text(&compared, ResultTable::to_markdown, ("**", "**"), "bold marks"),
        Format::Csv => csv(&compared)?,
        Format::Json => serde_json::to_string_pretty(&json_of(&compared))?,
    };
    console::print(text.trim_end());
    Ok(compared.exit_code)
}

/// The tables and what explains them. `before` and `after` are around the best value, and `mark` says so.
fn text(
    compared: &Compared,
    render: impl Fn(&ResultTable) -> String,
    (before, after): (&str, &str),
    mark: &str,
) -> String {
    let mut parts = Vec::new();
    if !compared.is_grouped {
        parts.push(render(&runs_table(compared, before, after)));
    }
    if compared.is_grouped || compared.has_seeds() {
        parts.push(render(&groups_table(compared, before, after)));
    }
    let notes = notes(compared, mark);
    if !notes.is_empty() {
        parts.push(notes.join("\n"));
    }
    parts.join("\n\n")
}

/// One row for each run.
pub(super) fn runs_table(compared: &Compared, before: &str, after: &str) -> ResultTable {
    let metrics = compared.metrics.iter().map(|metric| metric.name.clone());
    let columns = ["run".to_owned()].into_iter().chain(compared.keys.iter().cloned()).chain(metrics);
    let table = ResultTable::new(columns.chain(["step".to_owned(), "status".to_owned()]));
    compared.entries_in_order().into_iter().fold(table, |table, entry| {
        let settings = compared.keys.iter().map(|key| setting(entry, key));
        let values = compared.metrics.iter().zip(&entry.values).enumerate().map(|(index, (metric, value))| {
            let text = value.map_or_else(dash, |measured| format_value(&metric.name, measured.value));
            if compared.is_best_run(index, entry) { format!("{before}{text}{after}") } else { text }
        });
        let step = entry.values[0].map_or_else(dash, |measured| measured.step.to_string());
        let status = status_name(&entry.run.status()).to_owned();
        table.row([entry.run.name.clone()].into_iter().chain(settings).chain(values).chain([step, status]))
    })
}

/// One row for each group.
pub(super) fn groups_table(compared: &Compared, before: &str, after: &str) -> ResultTable {
    let metrics = compared.metrics.iter().map(|metric| format!("{}, mean ± std", metric.name));
    let keys = compared.group_keys.iter().cloned();
    let first = if compared.group_keys.is_empty() { vec!["group".to_owned()] } else { Vec::new() };
    let table = ResultTable::new(first.iter().cloned().chain(keys).chain(["runs".to_owned()]).chain(metrics));
    compared.groups.iter().fold(table, |table, group| {
        let name = first.iter().map(|_| "all".to_owned());
        let settings = group.values.iter().map(|value| value.clone().unwrap_or_else(dash));
        let values = compared.metrics.iter().zip(&group.statistics).enumerate().map(|(index, (metric, statistics))| {
            let Some(statistics) = statistics else { return dash() };
            let mean = format_value(&metric.name, statistics.mean);
            let std = statistics.std.map_or_else(dash, |std| format_value(&metric.name, std));
            let few =
                if statistics.num < group.members.len() { format!(" (of {})", statistics.num) } else { String::new() };
            let text = format!("{mean} ± {std}{few}");
            if compared.is_best_group(index, group) { format!("{before}{text}{after}") } else { text }
        });
        table.row(name.chain(settings).chain([group.members.len().to_string()]).chain(values))
    })
}

fn setting(entry: &Entry, key: &str) -> String {
    entry.settings.get(key).cloned().unwrap_or_else(dash)
}

pub(super) fn dash() -> String {
    "–".to_owned()
}

/// What the tables leave open.
pub(super) fn notes(compared: &Compared, mark: &str) -> Vec<String> {
    let mut notes = Vec::new();
    for (index, metric) in compared.metrics.iter().enumerate() {
        let which = match (index, compared.at) {
            (0, At::Best) if metric.better.is_some() => "the best of each run",
            (0, _) => "the newest of each run",
            _ => "that of the same step",
        };
        let meaning = match metric.better {
            Some(Better::Lower) => format!("lower is better, {mark} the best"),
            Some(Better::Higher) => format!("higher is better, {mark} the best"),
            None => "no direction is better".to_owned(),
        };
        notes.push(format!("{}: {which}; {meaning}.", metric.name));
        let mut missing: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        for entry in compared.entries.iter().filter(|entry| entry.values[index].is_none()) {
            let known = names(&entry.rows);
            let why = if known.is_empty() {
                "no metric is recorded".to_owned()
            } else if known.contains(metric.name.as_str()) {
                format!("{} has no value at that step", metric.name)
            } else {
                format!("stage {} does not record {}, but {}", entry.run.stage(), metric.name, listed(&known))
            };
            missing.entry(why).or_default().insert(&entry.run.name);
        }
        notes.extend(missing.into_iter().map(|(why, runs)| format!("–: {why} ({}).", listed(&runs))));
    }
    if compared.has_stages() {
        notes.push(
            "The runs are of several stages: values compare within a stage, and the best of each is marked.".to_owned(),
        );
    }
    if compared.has_seeds() {
        notes.push("std: the standard deviation over the runs of a group, with n - 1.".to_owned());
    }
    let hidden: BTreeSet<&str> = compared.hidden_keys.iter().map(String::as_str).filter(|key| *key != SEED).collect();
    if !hidden.is_empty() {
        notes.push(format!("Settings that differ and are not shown (--keys): {}.", listed(&hidden)));
    }
    notes
}

fn csv(compared: &Compared) -> Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let metrics = compared.metrics.iter().map(|metric| metric.name.clone());
    let digits = |value: f64| value.to_string();
    if compared.is_grouped {
        let statistics =
            metrics.flat_map(|name| [format!("{name} mean"), format!("{name} std"), format!("{name} num")]);
        writer.write_record(
            compared.group_keys.iter().cloned().chain(["runs".into()]).chain(statistics).chain(["best".into()]),
        )?;
        for group in &compared.groups {
            let settings = group.values.iter().map(|value| value.clone().unwrap_or_default());
            let values = group.statistics.iter().flat_map(|statistics| match statistics {
                Some(found) => [digits(found.mean), found.std.map(digits).unwrap_or_default(), found.num.to_string()],
                None => [String::new(), String::new(), "0".to_owned()],
            });
            let best = compared.is_best_group(0, group).to_string();
            writer.write_record(settings.chain([group.members.len().to_string()]).chain(values).chain([best]))?;
        }
    } else {
        let first = ["run".to_owned(), "stage".to_owned(), "status".to_owned()];
        let last = ["step".to_owned(), "best".to_owned()];
        writer.write_record(first.into_iter().chain(compared.keys.iter().cloned()).chain(metrics).chain(last))?;
        for entry in compared.entries_in_order() {
            let run = &entry.run;
            let first = [run.name.clone(), run.stage().to_owned(), status_name(&run.status()).to_owned()];
            let settings = compared.keys.iter().map(|key| entry.settings.get(key).cloned().unwrap_or_default());
            let values = entry.values.iter().map(|value| value.map(|found| digits(found.value)).unwrap_or_default());
            let step = entry.values[0].map(|found| found.step.to_string()).unwrap_or_default();
            let best = compared.is_best_run(0, entry).to_string();
            writer.write_record(first.into_iter().chain(settings).chain(values).chain([step, best]))?;
        }
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

fn json_of(compared: &Compared) -> Value {
    let by_metric = |values: Vec<Value>| -> Map<String, Value> {
        compared.metrics.iter().map(|metric| metric.name.clone()).zip(values).collect()
    };
    let run = |entry: &Entry| {
        let settings: Map<String, Value> =
            compared.keys.iter().map(|key| (key.clone(), json!(entry.settings.get(key)))).collect();
        json!({
            "name": entry.run.name, "path": entry.run.path, "stage": entry.run.stage(),
            "status": status_name(&entry.run.status()), "settings": settings,
            "metrics": by_metric(entry.values.iter().map(|value: &Option<Measured>| json!(value)).collect()),
            "is_best": compared.is_best_run(0, entry),
        })
    };
    let group = |group: &Group| {
        let settings: Map<String, Value> =
            compared.group_keys.iter().cloned().zip(group.values.iter().map(|value| json!(value))).collect();
        let members = group.members.iter().map(|&index| compared.entries[index].run.name.as_str());
        json!({
            "settings": settings, "runs": members.collect::<Vec<_>>(),
            "metrics": by_metric(group.statistics.iter().map(|found| json!(found)).collect()),
            "is_best": compared.is_best_group(0, group),
        })
    };
    json!({
        "metrics": compared.metrics.iter().map(|metric| json!({ "name": metric.name, "better": metric.better })).collect::<Vec<_>>(),
        "runs": compared.entries_in_order().into_iter().map(run).collect::<Vec<_>>(),
        "groups": compared.groups.iter().map(group).collect::<Vec<_>>(),
    })
}

/// How a plot or a page names a group.
pub(super) fn group_name(compared: &Compared, group: &Group) -> String {
    let first = &compared.entries[group.members[0]];
    let settings = in_short(&compared.group_keys, &first.settings);
    match (group.members.len(), settings.is_empty()) {
        (1, true) => first.run.name.clone(),
        (1, false) => settings,
        (num, true) => format!("all {num} runs"),
        (num, false) => format!("{settings} ({num} runs)"),
    }
}

/// Refuses a comparison that nobody can read.
///
/// # Errors
/// [`Problem`] where there are more than `max` curves.
pub(super) fn refuse_more_curves_than(max: usize, num: usize) -> Result<(), Problem> {
    if num <= max {
        return Ok(());
    }
    let hint = "name fewer runs, or combine them with --group-by KEY";
    Err(Problem::new("DIR", format!("{num} curves in one plot are more than {max}"), hint))
}
