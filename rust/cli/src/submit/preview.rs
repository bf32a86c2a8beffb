//! What a submission would do, without doing it.

use super::{array, plans::Submission, preflight_job, stage3};
use anyhow::Result;
use hlrp_schema::{PlanForm, RunBasics};
use hlrp_slurm::{plan::JobPlan, script::batch_script, shell::quoted};
use hlrp_track::table::ResultTable;
use serde_json::{Value, json};
use std::path::Path;

/// What a dry run ends with.
const NOTHING_WRITTEN: &str = "dry run: nothing was written or queued";

/// Scripts and plan as text.
pub(super) fn text(submission: &Submission) -> String {
    let mut parts = Vec::new();
    let is_slurm = submission.basics.cluster.slurm.enabled;
    for job in jobs(submission) {
        let (title, body) = match is_slurm {
            true => (job.script_path().display().to_string(), batch_script(job)),
            false => (job.job_name.clone(), local_command(job) + "\n"),
        };
        parts.push(section(&title, &body));
    }
    if is_slurm {
        let checks = preflight_job::of(submission).map(preflight_job::script);
        let array = array::script(submission).map(|script| (script.path, script.text));
        parts.extend(checks.chain(array).map(|(path, text)| section(&path.display().to_string(), &text)));
    }
    parts.push(table(submission).to_text());
    parts.extend(notes(submission));
    parts.push(NOTHING_WRITTEN.into());
    parts.join("\n")
}

fn section(title: &str, body: &str) -> String {
    format!("── {title} ──\n{body}")
}

/// Scripts and plan as one JSON document.
///
/// # Errors
/// A path is not Unicode.
pub(super) fn json(submission: &Submission) -> Result<String> {
    let of_job = |job: &JobPlan| -> Result<Value> {
        let mut value = with_script(job, &job.script_path(), &batch_script(job))?;
        let is_checked = preflight_job::of(submission).any(|checked| std::ptr::eq(checked, job));
        let check = is_checked.then(|| preflight_job::script(job));
        value["preflight"] = check.map(|(path, text)| json!({ "script": text, "script_path": path })).into();
        Ok(value)
    };
    let runs = submission.runs.iter().map(|run| -> Result<Value> {
        let jobs = run.jobs.iter().flatten().map(of_job).collect::<Result<Vec<_>>>()?;
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

fn with_script(job: &JobPlan, path: &Path, text: &str) -> Result<Value> {
    let mut value = serde_json::to_value(job)?;
    value["script"] = text.into();
    value["script_path"] = path.display().to_string().into();
    Ok(value)
}

/// Jobs that train nothing, each with the path and the text of its script, as `submit.print` asks.
///
/// # Errors
/// A path is not Unicode.
pub(super) fn of_jobs(form: PlanForm, jobs: &[(&JobPlan, &Path, &str)]) -> Result<String> {
    match form {
        PlanForm::Text => {
            let sections = jobs.iter().map(|(_, path, text)| section(&path.display().to_string(), text));
            Ok(sections.chain([NOTHING_WRITTEN.to_owned()]).collect::<Vec<_>>().join("\n"))
        }
        PlanForm::Json => {
            let jobs = jobs.iter().map(|(job, path, text)| with_script(job, path, text)).collect::<Result<Vec<_>>>()?;
            Ok(serde_json::to_string_pretty(&json!({ "slurm": true, "jobs": jobs }))?)
        }
    }
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
        // The steps of a pipeline are submitted as it is.
        let Ok(RunBasics { submit, .. }) = RunBasics::of(&run.composed) else { continue };
        for composed in &run.configurations {
            let Ok(basics) = RunBasics::of(composed) else { continue };
            let basics = RunBasics { submit: submit.clone(), ..basics };
            notes.extend(stage3::cost(composed, &basics).map(|cost| format!("note: {cost}")));
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
