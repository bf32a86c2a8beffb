//! `hlrp runs show`: one run at a glance.

use super::{
    find,
    list::duration,
    record::{Run, status_name},
    values::{At, counted},
};
use anyhow::Result;
use clap::Args;
use hlrp_track::{
    console::{self, format_value},
    metrics::{Better, MetricsRow},
    run::{Artifact, RunStatus, Session, unix_seconds},
    table::ResultTable,
};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Options of `hlrp runs show`.
#[derive(Debug, Args)]
pub(crate) struct ShowOptions {
    /// A run directory.
    run: PathBuf,
    /// Print JSON: run.json, with the status as it is now and the newest and best values.
    #[arg(long)]
    json: bool,
}

pub(super) fn show(options: &ShowOptions) -> Result<ExitCode> {
    let run = find::one_run(&options.run)?;
    let rows = run.metrics()?;
    if options.json {
        let mut value = serde_json::to_value(&run.manifest)?;
        value["status"] = status_name(&run.status()).into();
        value["path"] = json!(run.path);
        value["results"] = run
            .manifest
            .metrics
            .iter()
            .map(|spec| {
                let measured = |at| counted(&rows, &spec.name, spec.better, at);
                (spec.name.clone(), json!({ "best": spec.better.and(measured(At::Best)), "last": measured(At::Last) }))
            })
            .collect::<serde_json::Map<_, _>>()
            .into();
        console::print(&serde_json::to_string_pretty(&value)?);
        return Ok(ExitCode::SUCCESS);
    }
    let mut parts = vec![aligned(&facts(&run, &rows))];
    if run.manifest.sessions.len() > 1 {
        parts.push(sessions(&run).to_text());
    }
    let results = results(&run, &rows);
    if !results.is_empty() {
        parts.push(results.to_text());
    }
    console::print(&parts.join("\n\n"));
    Ok(ExitCode::SUCCESS)
}

/// Lines `name  value`.
fn aligned(facts: &[(String, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    facts.iter().map(|(name, value)| format!("{name:width$}  {value}")).collect::<Vec<_>>().join("\n")
}

/// What the run records about itself, name and value; a name may occur several times.
pub(super) fn facts(run: &Run, rows: &[MetricsRow]) -> Vec<(String, String)> {
    let manifest = &run.manifest;
    let mut lines: Vec<(String, String)> = Vec::new();
    let mut line = |name: &str, value: String| lines.push((name.to_owned(), value));
    line("run", run.path.display().to_string());
    line("experiment", format!("{} ({})", manifest.experiment, run.stage()));
    if !manifest.description.is_empty() {
        line("description", manifest.description.clone());
    }
    let status = run.status();
    line("status", status_text(&status));
    let step = rows.last().map_or(0, |row| row.step);
    line("steps", step.to_string());
    if let Some(session) = run.last_session() {
        line("started", time_text(session, &status));
        line("command", command(session));
        if let Some(folder) = &session.working_dir {
            line("in", folder.display().to_string());
        }
        line(
            "versions",
            session.versions.iter().map(|(name, version)| format!("{name} {version}")).collect::<Vec<_>>().join(", "),
        );
        if let Some(git) = &session.git {
            let patch = git.patch.as_ref().map(|patch| format!(", changed: {patch}"));
            let changed = patch.unwrap_or_else(|| if git.dirty { ", changed".to_owned() } else { String::new() });
            line("commit", format!("{}{changed}", git.commit));
        }
        line("host", format!("{}, {} CPU threads", session.host, session.num_threads));
        if let Some(devices) = &session.devices {
            line("CPU", format!("{}, {} cores", devices.cpu, devices.num_cores));
            for gpu in &devices.gpus {
                line("GPU", gpu.clone());
            }
        }
        if let Some(job) = &session.slurm {
            let place = [&job.cluster, &job.partition, &job.nodes].into_iter().flatten().cloned();
            line("job", [job.id.clone()].into_iter().chain(place).collect::<Vec<_>>().join(", "));
        }
        for (name, data) in &session.data {
            line(
                "data",
                format!(
                    "{name}: {}, {} episodes, fingerprint {}",
                    data.root.display(),
                    data.num_episodes,
                    data.fingerprint
                ),
            );
        }
        session.inputs.iter().for_each(|input| line("input", artifact(input)));
        session.outputs.iter().for_each(|output| line("output", artifact(output)));
        if let Some(verdict) = &session.verdict {
            line("verdict", verdict.replace('\n', "; "));
        }
        session.links.iter().for_each(|(service, address)| line("link", format!("{service}: {address}")));
    }
    lines
}

/// The command line of a session, with the bare name of the program.
pub(super) fn command(session: &Session) -> String {
    let name = |program: &String| Path::new(program).file_name().map(|name| name.to_string_lossy().into_owned());
    let program = session.command.first().and_then(name);
    program.into_iter().chain(session.command.iter().skip(1).cloned()).collect::<Vec<_>>().join(" ")
}

fn status_text(status: &RunStatus) -> String {
    let code =
        status.exit_code().filter(|code| *code != 0).map(|code| format!(", exit code {code}")).unwrap_or_default();
    match status {
        RunStatus::Failed { reason, .. } => format!("failed{code}: {reason}"),
        other => format!("{}{code}", status_name(other)),
    }
}

fn time_text(session: &Session, status: &RunStatus) -> String {
    let started = &session.started_at;
    let seconds = |time: &str| unix_seconds(time);
    match &session.ended_at {
        Some(ended) => {
            let taken = seconds(ended).zip(seconds(started)).map(|(end, start)| duration(end - start));
            format!("{started}, ended {ended} ({})", taken.unwrap_or_default())
        }
        None if *status == RunStatus::Running => format!("{started}, running"),
        None => format!("{started}, its end is not recorded"),
    }
}

fn artifact(artifact: &Artifact) -> String {
    let digest = artifact.sha256.as_deref().map(|digest| format!(", sha256 {digest}")).unwrap_or_default();
    format!("{}: {}{digest}", artifact.role, artifact.path.display())
}

/// One row for each session of a run that was resumed.
fn sessions(run: &Run) -> ResultTable {
    let table = ResultTable::new(["session", "started", "from step", "status", "host"]);
    run.manifest.sessions.iter().enumerate().fold(table, |table, (index, session)| {
        let is_last = index + 1 == run.manifest.sessions.len();
        let status = if is_last { run.status() } else { session.status.clone() };
        table.row([
            (index + 1).to_string(),
            session.started_at.clone(),
            session.start_step.to_string(),
            status_name(&status).to_owned(),
            session.host.clone(),
        ])
    })
}

/// Newest and best value of each metric that tables show.
pub(super) fn results(run: &Run, rows: &[MetricsRow]) -> ResultTable {
    let table = ResultTable::new(["result", "last", "best", "at step", "better"]);
    run.manifest.metrics.iter().filter(|spec| !spec.label.is_empty()).fold(table, |table, spec| {
        let Some(last) = counted(rows, &spec.name, None, At::Last) else { return table };
        let best = spec.better.and_then(|better| counted(rows, &spec.name, Some(better), At::Best));
        let direction = match spec.better {
            Some(Better::Lower) => "lower",
            Some(Better::Higher) => "higher",
            None => "",
        };
        table.row([
            format!("{} ({})", spec.label, spec.name),
            format_value(&spec.name, last.value),
            best.map(|best| format_value(&spec.name, best.value)).unwrap_or_default(),
            best.map(|best| best.step.to_string()).unwrap_or_default(),
            direction.to_owned(),
        ])
    })
}
