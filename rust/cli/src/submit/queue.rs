//! Getting the jobs of a submission into the queue.

use super::{
    array,
    plans::{RunPlan, Submission},
    preview,
};
use anyhow::{Context, Result};
use hlrp_config::Problem;
use hlrp_slurm::{
    claim,
    client::{Answer, Slurm, Submitted},
    in_job::{CLAIMS, state_of},
    outcome::SUBMIT_DIR,
    plan::JobPlan,
    shell::quoted,
    snapshot,
    submission::{self, JobKind},
};
use hlrp_track::{console, run::RunLock, table::ResultTable};
use std::{fs, io::ErrorKind, path::Path, process::ExitCode};

/// What is in the queue.
#[derive(Default)]
pub(super) struct Queued {
    rows: Vec<[String; 4]>,
    /// As `hlrp jobs` takes them.
    ids: Vec<String>,
}

impl Queued {
    pub(super) fn add(&mut self, job: &JobPlan, submitted: &Submitted, note: &str) {
        let name = if note.is_empty() { job.job_name.clone() } else { format!("{} ({note})", job.job_name) };
        let id = &submitted.id;
        tracing::info!("job {id} is in the queue of {}: {name}", job.cluster);
        let output = job.run_dir.join(format!("{id}.out")).display().to_string();
        self.rows.push([id.clone(), job.cluster.clone(), name, output]);
        self.ids
            .push(submitted.cluster.as_ref().map_or_else(|| id.clone(), |cluster| quoted(&format!("{id};{cluster}"))));
    }

    /// What was queued and how to watch it.
    pub(super) fn print(&self) {
        if self.rows.is_empty() {
            return;
        }
        let table = ResultTable::new(["job id", "cluster", "name", "output"]);
        let table = self.rows.iter().fold(table, |table, row| table.row(row.clone()));
        let ids = self.ids.join(" ");
        console::print(&format!("{}\n\nwatch with: hlrp jobs watch {ids}", table.to_text()));
    }
}

/// Queues every run. Whatever happens, what is in the queue is printed.
///
/// # Errors
/// Slurm refuses a job or does not answer.
pub(super) fn submit(submission: &Submission) -> Result<ExitCode> {
    let mut queued = Queued::default();
    let result = submit_all(submission, &mut queued);
    queued.print();
    if result.is_err() {
        for run_dir in not_queued(submission)? {
            console::print(&format!("not queued: {0}; continue with: hlrp submit --resume {0}", run_dir.display()));
        }
    }
    preview::notes(submission).iter().for_each(|note| console::print(note));
    result.map(|()| ExitCode::SUCCESS)
}

/// The runs of a refused submission that lack a job and can be completed: their plans are there, and are those of this submission.
fn not_queued(submission: &Submission) -> Result<Vec<&Path>> {
    let mut run_dirs = Vec::new();
    for run in &submission.runs {
        for job in run.jobs.iter().flatten() {
            let is_planned = JobPlan::read(&job.path()).is_ok_and(|plan| plan.token == job.token);
            if !is_planned || run_dirs.contains(&run.run_dir.as_path()) {
                continue;
            }
            if !submission::jobs(&job.submit_dir)?.iter().any(|record| record.cluster == job.cluster) {
                run_dirs.push(run.run_dir.as_path());
            }
        }
    }
    Ok(run_dirs)
}

fn submit_all(submission: &Submission, queued: &mut Queued) -> Result<()> {
    for run in &submission.runs {
        write(submission, run)?;
    }
    if let Some(script) = array::script(submission) {
        return array::submit(submission, &script, queued);
    }
    submission.runs.iter().try_for_each(|run| submit_run(submission, run, queued))
}

/// Takes a run directory for one submission: of two at the same moment, one creates the folder.
///
/// # Errors
/// Another submission has the directory, there is something else in it, or the system refuses.
pub(super) fn take(run_dir: &Path) -> Result<()> {
    if !run_dir.join(SUBMIT_DIR).exists() {
        super::preflight::refuse_occupied(run_dir)?;
    }
    fs::create_dir_all(run_dir).with_context(|| format!("cannot create {}", run_dir.display()))?;
    let folder = run_dir.join(SUBMIT_DIR);
    match fs::create_dir(&folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let message = format!("{} belongs to another submission", run_dir.display());
            Err(Problem::new("logging.run_dir", message, "choose another directory").into())
        }
        created => created.with_context(|| format!("cannot create {}", folder.display())),
    }
}

/// Lets no other client queue jobs of the run in `run_dir`, which was submitted, while this one looks and queues.
///
/// # Errors
/// Another client is at it, or the system refuses.
pub(super) fn lock(run_dir: &Path) -> Result<RunLock> {
    Ok(RunLock::acquire(&run_dir.join(SUBMIT_DIR))?)
}

/// Takes the directory of a run and writes everything about its submission there.
///
/// # Errors
/// As [`take`].
pub(super) fn write(submission: &Submission, run: &RunPlan) -> Result<()> {
    take(&run.run_dir)?;
    snapshot::write(&submission.tree, &run.run_dir.join(SUBMIT_DIR))?;
    for job in run.jobs.iter().flatten() {
        fs::create_dir_all(&job.cache_dir).with_context(|| format!("cannot create {}", job.cache_dir.display()))?;
        submission::write(job)?;
    }
    Ok(())
}

fn submit_run(submission: &Submission, run: &RunPlan, queued: &mut Queued) -> Result<()> {
    let _lock = lock(&run.run_dir)?;
    if let Some(first) = run.jobs.iter().flatten().next() {
        let queued = submission::ids(&first.submit_dir)?;
        if !queued.is_empty() {
            tracing::info!("another client has queued {} as {}", run.run_dir.display(), queued.join(", "));
            return Ok(());
        }
    }
    for jobs in &run.jobs {
        let Some(first) = jobs.first() else { continue };
        if run.jobs.len() > 1 && is_claimed(first)? {
            tracing::info!("the run has started: it is not queued on {} any more", first.cluster);
            continue;
        }
        let slurm = submission.slurm(first);
        let of_job = || format!("cluster '{}'", first.cluster);
        let mut options = Vec::new();
        if submission.basics.submit.preflight {
            options = submit_check(first, &slurm, queued).with_context(of_job)?;
        }
        submit_chain(jobs, &slurm, options, queued).with_context(of_job)?;
    }
    Ok(())
}

/// Queues the check of a node, and returns the options of sbatch with which the run waits for it.
///
/// # Errors
/// Slurm refuses the job or does not answer.
pub(super) fn submit_check(first: &JobPlan, slurm: &Slurm, queued: &mut Queued) -> Result<Vec<String>> {
    let submitted = super::preflight_job::submit(first, slurm)?;
    queued.add(first, &submitted, "preflight");
    Ok(after_check(&submitted.id))
}

/// The options of sbatch with which a run waits for its check; one whose check has failed leaves the queue.
pub(super) fn after_check(id: &str) -> Vec<String> {
    vec![format!("--dependency=afterok:{id}"), "--kill-on-invalid-dep=yes".into()]
}

/// The options of sbatch with which a step waits for the one before it.
pub(super) fn after_step(id: &str) -> Vec<String> {
    vec![format!("--dependency=afterany:{id}")]
}

/// Queues jobs of one cluster, the first with these options of sbatch, each after the one before. A step decides by the state of the pipeline whether it starts.
///
/// # Errors
/// Slurm refuses a job or does not answer.
pub(super) fn submit_chain(
    jobs: &[JobPlan],
    slurm: &Slurm,
    mut options: Vec<String>,
    queued: &mut Queued,
) -> Result<()> {
    for job in jobs {
        let submitted = submission::submit(job, slurm, &options)?;
        submission::record(job, &submitted, JobKind::Run)?;
        queued.add(job, &submitted, "");
        options = after_step(&submitted.id);
        cancel_if_late(job, slurm, &submitted)?;
    }
    Ok(())
}

/// A sibling may have started between the last look at the claim and this submission; it could not cancel a job that was not queued yet. A job
/// that had the run and has ended, as before a run is queued again, is none.
fn cancel_if_late(job: &JobPlan, slurm: &Slurm, submitted: &Submitted) -> Result<()> {
    let owner = claim::current(&job.submit_dir.join(CLAIMS))?.map(|(_, owner)| owner);
    let Some(owner) = owner.filter(|owner| owner.job != submitted.id && job.race.len() > 1) else { return Ok(()) };
    if let Answer::Active { .. } = state_of(job, &owner, None) {
        tracing::info!("{owner} has started the run: job {} is cancelled", submitted.id);
        slurm.cancel_pending(&submitted.id)?;
    }
    Ok(())
}

fn is_claimed(job: &JobPlan) -> Result<bool> {
    Ok(claim::current(&job.submit_dir.join(CLAIMS))?.is_some())
}
