//! `hlrp submit acceptance`: whether a site does what a run needs, shown by a run whose program is a check of its node.
//!
//! Its script is that of any run: the same directives, container flags, environment and claim. Two jobs of it race; a third reports.

use super::{plans, preflight, preview, queue};
use anyhow::{Context, Result};
use hlrp_config::Problem;
use hlrp_schema::ConfigArgs;
use hlrp_slurm::{
    client::Slurm,
    plan::JobPlan,
    script::{batch_script, host_script},
    submission::{self, JobKind},
};
use hlrp_track::{console, fs::write_atomic};
use std::{path::Path, process::ExitCode, time::Duration};

/// Name of the run, and of its report.
const NAME: &str = "acceptance";

/// Queues the jobs, or prints their scripts in a dry run.
///
/// # Errors
/// A cluster without Slurm; Slurm refuses or does not answer.
pub(super) fn submit(config: &ConfigArgs, time_limit: Duration) -> Result<ExitCode> {
    let mut config = config.clone();
    config.overrides.extend([format!("experiment.name={NAME}"), "sweep.params=null".into(), "submit.race=null".into()]);
    let mut submission = plans::plan(&config, time_limit)?;
    if !submission.basics.cluster.slurm.enabled {
        let message = format!("'{}' has no Slurm", submission.basics.cluster.name);
        return Err(Problem::new("cluster", message, "choose the cluster to check: cluster=mcml_h100").into());
    }
    for job in submission.runs.iter_mut().flat_map(|run| run.jobs.iter_mut().flatten()) {
        let command = ["job".to_owned(), "preflight".to_owned(), job.path().display().to_string()];
        let check: Vec<String> = command.iter().chain(job.config_arguments()).cloned().collect();
        job.start.clone_from(&check);
        job.resume = check;
        job.resources.time_limit = job.short(NAME).resources.time_limit;
        job.save_before_limit_s = 60;
    }
    let job = preview::jobs(&submission).next().context("no job")?;
    let report = report(job);
    let report_path = job.submit_dir.join(format!("{}.report.sbatch", job.cluster));
    let settings = &submission.basics.submit;
    if settings.dry_run {
        let (script, text) = (job.script_path(), batch_script(job));
        let jobs = [(job, script.as_path(), text.as_str()), (&report.0, &report_path, &report.1)];
        console::print(&preview::of_jobs(settings.print, &jobs)?);
        return Ok(ExitCode::SUCCESS);
    }
    preflight::check_jobs(&submission, [job])?;
    let run = submission.runs.first().context("no run")?;
    queue::write(&submission, run)?;
    write_atomic(&report_path, &report.1)?;
    let slurm = submission.slurm(job);
    let mut queued = queue::Queued::default();
    let result = submit_jobs(job, &slurm, (&report.0, &report_path), &mut queued);
    queued.print();
    result?;
    console::print(&format!("report         {}", job.run_dir.join(format!("{NAME}.md")).display()));
    Ok(ExitCode::SUCCESS)
}

/// Queues the two jobs that race and, after them, the one that reports.
fn submit_jobs(
    job: &JobPlan,
    slurm: &Slurm,
    (report, report_path): (&JobPlan, &Path),
    queued: &mut queue::Queued,
) -> Result<()> {
    let mut ids: Vec<String> = Vec::new();
    for _ in 0..2 {
        let submitted = submission::submit_script(&job.script_path(), &job.comment(), slurm, &[], &ids)?;
        submission::record(job, &submitted, JobKind::Run)?;
        queued.add(job, &submitted, "");
        ids.push(submitted.id);
    }
    let dependency = format!("--dependency=afterany:{}", ids.join(":"));
    let submitted = submission::submit_script(report_path, &report.comment(), slurm, &[dependency], &[])?;
    queued.add(report, &submitted, "");
    Ok(())
}

/// The job that reports, with its script.
fn report(job: &JobPlan) -> (JobPlan, String) {
    let plan = job.short("report");
    let command = [job.program.display().to_string(), "job".into(), "report".into(), job.path().display().to_string()];
    let text = host_script(&plan, &command);
    (plan, text)
}
