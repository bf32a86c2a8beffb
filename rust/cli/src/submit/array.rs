//! A sweep as one job array: its script starts the script of the member's run.

use super::{plans::Submission, preview, queue::Queued};
use anyhow::Result;
use hlrp_config::Problem;
use hlrp_slurm::{
    outcome::SUBMIT_DIR,
    plan::{JobPlan, Token},
    script::array_script,
    submission::{self, ArrayMember},
};
use hlrp_track::fs::write_atomic;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The script of an array.
pub(super) struct ArrayScript {
    /// Where it is kept.
    pub(super) path: PathBuf,
    /// Its text.
    pub(super) text: String,
    /// What its job asks for.
    plan: JobPlan,
}

/// The script, where a sweep becomes an array.
pub(super) fn script(submission: &Submission) -> Option<ArrayScript> {
    let settings = &submission.basics.submit;
    if !settings.array || submission.runs.len() < 2 {
        return None;
    }
    let members: Vec<&JobPlan> = submission.runs.iter().filter_map(|run| run.jobs.first()?.first()).collect();
    let first = members.first()?;
    let suffix = submission.runs[0].suffix.as_deref().map(|suffix| format!("_{suffix}")).unwrap_or_default();
    let strip = |text: &str| text.strip_suffix(suffix.as_str()).unwrap_or(text).to_owned();
    let name = first.run_dir.file_name().unwrap_or_default().to_string_lossy();
    let folder = first.run_dir.with_file_name(format!("{}_array", strip(&name)));
    let plan = JobPlan {
        token: Token::random(),
        job_name: strip(&first.job_name),
        run_dir: folder.clone(),
        submit_dir: folder.join(SUBMIT_DIR),
        ..(*first).clone()
    };
    let scripts: Vec<PathBuf> = members.iter().map(|job| job.script_path()).collect();
    let run_dirs: Vec<PathBuf> = members.iter().map(|job| job.run_dir.clone()).collect();
    let text = array_script(&plan, &scripts, &run_dirs, settings.array_limit);
    Some(ArrayScript { path: plan.script_path(), text, plan })
}

/// Refuses a sweep that cannot become an array, where it shall.
///
/// # Errors
/// Its runs ask for different things, or have steps.
pub(super) fn check(submission: &Submission) -> Result<(), Problem> {
    let Some(script) = script(submission) else { return Ok(()) };
    let differs = |job: &&JobPlan| job.resources != script.plan.resources;
    if let Some(job) = preview::jobs(submission).find(differs) {
        let message = format!("{} asks for other resources than the first run", job.job_name);
        return Err(Problem::new("submit.array", message, "submit such a sweep as single jobs: submit.array=false"));
    }
    match preview::jobs(submission).find(|job| job.step.is_some()) {
        None => Ok(()),
        Some(job) => {
            let message = format!("{} is a step of a pipeline", job.job_name);
            Err(Problem::new("submit.array", message, "submit pipelines as single jobs: submit.array=false"))
        }
    }
}

/// Queues the array.
///
/// # Errors
/// Slurm refuses it or does not answer.
pub(super) fn submit(submission: &Submission, script: &ArrayScript, queued: &mut Queued) -> Result<()> {
    let jobs = || preview::jobs(submission);
    fs::create_dir_all(&script.plan.submit_dir)?;
    write_atomic(&script.path, &script.text)?;
    let run_dirs: Vec<&Path> = jobs().map(|job| job.run_dir.as_path()).collect();
    submission::record_members(&script.plan.submit_dir, &run_dirs)?;
    let comment = script.plan.comment();
    for (number, job) in jobs().enumerate() {
        submission::record_array(job, &ArrayMember { comment: comment.clone(), number })?;
    }
    let slurm = submission.slurm(&script.plan);
    let submitted = submission::submit_script(&script.path, &comment, &slurm, &[], &[])?;
    for (number, job) in jobs().enumerate() {
        let member = submitted.member(number);
        submission::record(job, &member, submission::JobKind::Run)?;
        queued.add(job, &member, "");
    }
    Ok(())
}
