//! `hlrp runs compare`: what differs between two runs, settings beside metrics.

use super::{
    find,
    record::{Run, status_name},
    settings::{self, Settings, is_essential},
    values::{At, Measured, counted},
};
use anyhow::Result;
use clap::Args;
use hlrp_track::{
    console::{self, format_value},
    metrics::{Better, MetricSpec, MetricsRow},
    run::Session,
    table::ResultTable,
};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::ExitCode,
};

/// Options of `hlrp runs compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareOptions {
    /// A run directory.
    left: PathBuf,
    /// Another one.
    right: PathBuf,
    /// Which value of a run counts.
    #[arg(long, value_enum, default_value_t = At::Best)]
    at: At,
    /// Also show settings that only name or place a run.
    #[arg(long)]
    all: bool,
    /// Print JSON, all digits.
    #[arg(long)]
    json: bool,
}

/// A name and what both sides have there.
type Pair<T> = (String, Option<T>, Option<T>);

pub(super) fn compare(options: &CompareOptions) -> Result<ExitCode> {
    let (left, right) = (find::one_run(&options.left)?, find::one_run(&options.right)?);
    let mut settings = differing_settings(&settings::of(&left)?, &settings::of(&right)?, options.all);
    let num_all = settings.len();
    if left.stage() != right.stage() && !options.all {
        settings.retain(|(_, left, right)| left.is_some() && right.is_some());
    }
    let num_left_out = num_all - settings.len();
    let facts = differing_facts(&left, &right);
    let metrics = metrics(&left, &right, options.at)?;
    if options.json {
        let pairs = |pairs: &[Pair<String>]| {
            let object = |(name, left, right): &Pair<String>| (name.clone(), json!({ "left": left, "right": right }));
            pairs.iter().map(object).collect::<serde_json::Map<_, _>>()
        };
        let values: serde_json::Map<_, _> = metrics
            .iter()
            .map(|(spec, left, right)| {
                (spec.name.clone(), json!({ "left": left, "right": right, "better": spec.better }))
            })
            .collect();
        let whole = json!({
            "left": left.path, "right": right.path, "settings": pairs(&settings), "facts": pairs(&facts), "metrics": values,
        });
        console::print(&serde_json::to_string_pretty(&whole)?);
        return Ok(ExitCode::SUCCESS);
    }
    let (a, b) = (format!("A  {}", left.path.display()), format!("B  {}", right.path.display()));
    let mut parts = vec![format!("{a}\n{b}")];
    parts.push(match settings.is_empty() {
        true => "no setting differs".to_owned(),
        false => pairs_table("setting", &settings).to_text(),
    });
    if num_left_out > 0 {
        let stages = format!("{} and {}", left.stage(), right.stage());
        parts.push(format!(
            "{num_left_out} settings that only one of the stages {stages} has are left out; --all shows them"
        ));
    }
    if !facts.is_empty() {
        parts.push(pairs_table("record", &facts).to_text());
    }
    parts.push(match metrics.is_empty() {
        true => "neither run has recorded a metric".to_owned(),
        false => metrics_table(&metrics).to_text(),
    });
    console::print(&parts.join("\n\n"));
    Ok(ExitCode::SUCCESS)
}

/// The settings that differ.
pub(super) fn differing_settings(left: &Settings, right: &Settings, all: bool) -> Vec<Pair<String>> {
    let keys: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let shown = keys.into_iter().filter(|key| all || is_essential(key));
    let pairs = shown.map(|key| (key.clone(), left.get(key).cloned(), right.get(key).cloned()));
    pairs.filter(|(_, left, right)| left != right).collect()
}

/// What the last sessions record differently besides settings: status, code, versions, hardware, data and inputs.
pub(super) fn differing_facts(left: &Run, right: &Run) -> Vec<Pair<String>> {
    let (left, right) = (facts(left), facts(right));
    let keys: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let pairs = keys.into_iter().map(|key| (key.clone(), left.get(key).cloned(), right.get(key).cloned()));
    pairs.filter(|(_, left, right)| left != right).collect()
}

fn facts(run: &Run) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::from([
        ("stage".to_owned(), run.stage().to_owned()),
        ("status".to_owned(), status_name(&run.status()).to_owned()),
    ]);
    let Some(session) = run.last_session() else { return facts };
    facts.extend(session.versions.iter().map(|(name, version)| (format!("version of {name}"), version.clone())));
    if let Some(git) = &session.git {
        let changed = if git.dirty { ", changed" } else { "" };
        facts.insert("commit".to_owned(), format!("{}{changed}", git.commit.get(..12).unwrap_or(&git.commit)));
    }
    facts.insert("host".to_owned(), session.host.clone());
    facts.insert("CPU threads".to_owned(), session.num_threads.to_string());
    if let Some(devices) = &session.devices {
        facts.insert("CPU".to_owned(), devices.cpu.clone());
        facts.insert("GPUs".to_owned(), devices.gpus.join(", "));
    }
    facts.extend(session.data.iter().map(|(name, data)| (format!("data {name}"), data.fingerprint.clone())));
    facts.extend(inputs(session));
    facts
}

fn inputs(session: &Session) -> impl Iterator<Item = (String, String)> + '_ {
    session.inputs.iter().map(|input| {
        let digest = input.sha256.as_deref().and_then(|digest| digest.get(..12));
        let text = digest.map_or_else(|| input.path.display().to_string(), |digest| format!("sha256 {digest}…"));
        (format!("input {}", input.role), text)
    })
}

fn pairs_table(first: &str, pairs: &[Pair<String>]) -> ResultTable {
    let cell = |value: &Option<String>| value.clone().unwrap_or_else(|| "–".to_owned());
    let table = ResultTable::new([first, "A", "B"]);
    pairs.iter().fold(table, |table, (name, left, right)| table.row([name.clone(), cell(left), cell(right)]))
}

type Compared = (MetricSpec, Option<Measured>, Option<Measured>);

/// The metrics that either run shows in tables; of undeclared ones those that both record.
fn metrics(left: &Run, right: &Run, at: At) -> Result<Vec<Compared>> {
    let (left_rows, right_rows) = (left.metrics()?, right.metrics()?);
    let mut specs: Vec<MetricSpec> = Vec::new();
    for spec in left.manifest.metrics.iter().chain(&right.manifest.metrics) {
        if specs.iter().all(|known| known.name != spec.name) {
            specs.push(spec.clone());
        }
    }
    let value = |rows: &[MetricsRow], spec: &MetricSpec| counted(rows, &spec.name, spec.better, at);
    let compared = specs.into_iter().map(|spec| {
        let (left, right) = (value(&left_rows, &spec), value(&right_rows, &spec));
        (spec, left, right)
    });
    Ok(compared.filter(|(spec, left, right)| !spec.label.is_empty() && (left.is_some() || right.is_some())).collect())
}

fn metrics_table(metrics: &[Compared]) -> ResultTable {
    let table = ResultTable::new(["metric", "A", "B", "B − A", "better"]);
    metrics.iter().fold(table, |table, (spec, left, right)| {
        let cell = |value: &Option<Measured>| {
            value.map_or_else(
                || "–".to_owned(),
                |found| format!("{} at {}", format_value(&spec.name, found.value), found.step),
            )
        };
        let difference = left.zip(*right).map(|(left, right)| right.value - left.value);
        let better = match (spec.better, difference) {
            (Some(_), Some(0.0)) => "equal",
            (Some(Better::Lower), Some(difference)) if difference < 0.0 => "B",
            (Some(Better::Higher), Some(difference)) if difference > 0.0 => "B",
            (Some(_), Some(difference)) if difference.is_finite() => "A",
            _ => "",
        };
        let difference = difference.map(|difference| format_value(&spec.name, difference)).unwrap_or_default();
        table.row([spec.name.clone(), cell(left), cell(right), difference, better.to_owned()])
    })
}
