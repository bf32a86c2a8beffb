//! `hlrp runs list`

use super::{
    find::{self, LeftOut},
    record::{Run, Score, status_name},
};
use anyhow::Result;
use clap::{Args, ValueEnum};
use hlrp_track::{console, table::ResultTable, time::unix_time};
use serde_json::json;
use std::{cmp::Reverse, path::PathBuf, process::ExitCode};

/// Options of `hlrp runs list`.
#[derive(Debug, Args)]
pub(crate) struct ListOptions {
    /// Run directories, or folders of runs; by default paths.runs_dir.
    #[arg(value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// Only runs of this stage: laq, vla, lerobot_train, lerobot_rollout, pipeline.
    #[arg(long)]
    stage: Option<String>,
    /// Order of the rows.
    #[arg(long, value_enum, default_value_t = Order::Age)]
    sort: Order,
    /// Print JSON, one object for each run.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Order {
    /// Newest first.
    Age,
    /// By name.
    Name,
    /// Most steps first.
    Steps,
}

struct Row {
    run: Run,
    status: &'static str,
    step: Option<u64>,
    score: Option<Score>,
    age: Option<i64>,
}

pub(super) fn list(options: &ListOptions) -> Result<ExitCode> {
    let mut left_out = LeftOut::default();
    let mut runs = find::runs(&options.dirs, &mut left_out)?;
    runs.retain(|run| options.stage.as_deref().is_none_or(|stage| run.stage() == stage));
    let now = unix_time() as i64;
    let mut rows: Vec<Row> = runs.into_iter().filter_map(|run| left_out.keep(row(run, now))).collect();
    let exit_code = left_out.report(rows.len())?;
    match options.sort {
        Order::Age => rows.sort_by_key(|row| (row.age.unwrap_or(i64::MAX), row.run.name.clone())),
        Order::Name => rows.sort_by(|left, right| left.run.name.cmp(&right.run.name)),
        Order::Steps => rows.sort_by_key(|row| (Reverse(row.step), row.run.name.clone())),
    }
    console::print(&if options.json { as_json(&rows)? } else { as_table(&rows) });
    Ok(exit_code)
}

fn row(run: Run, now: i64) -> Result<Row> {
    let last = run.last_metrics()?;
    Ok(Row {
        status: status_name(&run.status()),
        step: last.last().map(|row| row.step),
        score: run.score(&last)?,
        age: run.started().map(|started| now - started),
        run,
    })
}

fn as_table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no runs".to_owned();
    }
    let table = ResultTable::new(["run", "stage", "status", "steps", "score", "age"]);
    let table = rows.iter().fold(table, |table, row| {
        table.row([
            row.run.name.clone(),
            row.run.stage().to_owned(),
            row.status.to_owned(),
            row.step.map(|step| step.to_string()).unwrap_or_default(),
            row.score.as_ref().map(Score::text).unwrap_or_default(),
            row.age.map(duration).unwrap_or_default(),
        ])
    });
    table.to_text()
}

fn as_json(rows: &[Row]) -> Result<String> {
    let object = |row: &Row| {
        json!({
            "name": row.run.name, "path": row.run.path, "stage": row.run.stage(),
            "experiment": row.run.manifest.experiment, "status": row.status, "step": row.step,
            "score": row.score.as_ref().map(|score| json!({
                "metric": score.metric, "value": score.value, "is_best": score.is_best,
            })),
            "age_s": row.age,
        })
    };
    Ok(serde_json::to_string_pretty(&rows.iter().map(object).collect::<Vec<_>>())?)
}

/// A length of time in its largest unit: `45 s`, `3 min`, `2 h`, `12 d`.
pub(super) fn duration(seconds: i64) -> String {
    match seconds {
        ..0 => "0 s".to_owned(),
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}
