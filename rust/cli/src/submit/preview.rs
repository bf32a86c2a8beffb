//! What a submission would do, without doing it.

use super::{array, plans::Submission, stage3};
use anyhow::Result;
use hlrp_schema::RunBasics;
use hlrp_slurm::{plan::JobPlan, script::batch_script, shell::quoted};
use hlrp_track::table::ResultTable;
use serde_json::{Value, json};

/// Scripts and plan as text.
pub(super) fn text(submission: &Submission) -> String {
    let mut parts = Vec::new();
    let is_slurm = submission.basics.cluster.slurm.enabled;
    for job in jobs(submission) {
        let (title, body) = match is_slurm {
            true => (job.script_path().display().to_string(), batch_script(job)),
            false => (job.job_name.clone(), local_command(job) + "\n"),
        };
        parts.push(format!("── {title} ──\n{body}"));
    }
    if is_slurm && let Some(script) = array::script(submission) {
        parts.push(format!("── {} ──\n{}", script.path.display(), script.text));
    }
    parts.push(table(submission).to_text());
    parts.extend(notes(submission));
    parts.push("dry run: nothing was written or queued".into());
    parts.join("\n")
}

/// Scripts and plan as one JSON document.
///
/// # Errors
/// A path is not Unicode.
pub(super) fn json(submission: &Submission) -> Result<String> {
    let with_script = |job: &JobPlan| -> Result<Value> {
        let mut value = serde_json::to_value(job)?;
        value["script"] = batch_script(job).into();
        value["script_path"] = job.script_path().display().to_string().into();
        Ok(value)
    };
    let runs = submission.runs.iter().map(|run| -> Result<Value> {
        let jobs = run.jobs.iter().flatten().map(with_script).collect::<Result<Vec<_>>>()?;
        Ok(json!({ "run_dir": run.run_dir, "overrides": run.overrides, "jobs": jobs }))
    });
    let array = array::script(submission).map(|script| json!({ "script": script.text, "script_path": script.path }));
    let document = json!({
        "slurm": submission.basics.cluster.slurm.enabled,
        "runs": runs.collect::<Result<Vec<_>>>()?,
        "array": array,
    });
    Ok(serde_json::to_string_pretty(&document)?)
}

/// One row for each job.
pub(super) fn table(submission: &Submission) -> ResultTable {
    let titles = ["job", "cluster", "partition", "nodes", "gpus", "time", "run directory", "differs by"];
    let mut table = ResultTable::new(titles);
    for run in &submission.runs {
        let differs = run.suffix.as_deref().unwrap_or_default();
        for job in run.jobs.iter().flatten() {
            let resources = &job.resources;
            let gpus =
                if resources.gpus_per_node == 0 { "CPU only".into() } else { resources.gpus_per_node.to_string() };
            table = table.row([
                job.job_name.clone(),
                job.cluster.clone(),
                resources.partition.clone(),
                resources.num_nodes.to_string(),
                gpus,
                resources.time_limit.clone(),
                run.run_dir.display().to_string(),
                differs.to_owned(),
            ]);
        }
    }
    table
}

/// What a user should know about the runs, once each.
pub(super) fn notes(submission: &Submission) -> Vec<String> {
    let mut notes = Vec::new();
    for run in &submission.runs {
        if let Ok(basics) = RunBasics::of(&run.composed) {
            notes.extend(stage3::cost(&run.composed, &basics).map(|cost| format!("note: {cost}")));
        }
    }
    notes.dedup();
    notes
}

/// All jobs in the order in which they are queued.
pub(super) fn jobs(submission: &Submission) -> impl Iterator<Item = &JobPlan> {
    submission.runs.iter().flat_map(|run| run.jobs.iter().flatten())
}

/// The command of a run without Slurm.
fn local_command(job: &JobPlan) -> String {
    let words = std::iter::once("hlrp".to_owned()).chain(job.start.iter().cloned());
    words.map(|word| quoted(&word)).collect::<Vec<_>>().join(" ")
}
