//! What must hold before anything is queued.

use super::{plans::Submission, preflight_job, preview};
use crate::{disk::disk_rules, env, error::CommandError};
use anyhow::Result;
use hlrp_config::{Composed, Problem};
use hlrp_schema::{LerobotTrainConfig, RunBasics, Stage};
use hlrp_slurm::{
    client::{Limits, MaxSubmit, SlurmError},
    plan::JobPlan,
};
use hlrp_track::{
    fs::ensure_free,
    host::find_program,
    sinks::wandb::{Server, Settings},
};
use std::{
    collections::BTreeMap,
    fs,
    io::{IsTerminal, Write, stderr, stdin},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// More jobs than this are queued only after a question.
const MAX_UNASKED: usize = 50;
/// Slurm's program that submits.
const SBATCH: &str = "sbatch";
/// Files with credentials, below the home folder.
const SECRET_FILES: [&str; 3] = [".netrc", ".cache/huggingface/token", ".huggingface/token"];

/// Checks runs, images, credentials, space and the site's limits.
///
/// # Errors
/// What does not hold; nothing was queued.
pub(super) fn check(submission: &Submission) -> Result<()> {
    check_jobs(submission, preview::jobs(submission))?;
    for run in &submission.runs {
        refuse_occupied(&run.run_dir)?;
        run.configurations.iter().try_for_each(refuse_missing_credentials)?;
    }
    warn_of_readable_secrets();
    check_limits(submission)?;
    Ok(())
}

/// Checks what every kind of job needs: Slurm, its image if it has one, space.
///
/// # Errors
/// As [`check`].
pub(super) fn check_jobs<'a>(submission: &Submission, jobs: impl IntoIterator<Item = &'a JobPlan>) -> Result<()> {
    if find_program(SBATCH).is_none() {
        return Err(SlurmError::Missing { program: SBATCH }.into());
    }
    for job in jobs {
        refuse_missing_image(job)?;
    }
    let basics = &submission.basics;
    Ok(ensure_free(&submission.runs[0].run_dir, 0, &disk_rules(&basics.cluster, &basics.logging))?)
}

/// Refuses a run directory in which there is something.
///
/// # Errors
/// Its first entry.
pub(super) fn refuse_occupied(run_dir: &Path) -> Result<(), Problem> {
    let has_entries = fs::read_dir(run_dir).is_ok_and(|mut entries| entries.next().is_some());
    if !has_entries {
        return Ok(());
    }
    let path = run_dir.display();
    let hint = format!("choose another directory, or queue that run again: hlrp submit --resume {path}");
    Err(Problem::new("logging.run_dir", format!("the run directory {path} is not empty"), hint))
}

fn refuse_missing_image(job: &JobPlan) -> Result<(), Problem> {
    let Some(container) = &job.container else { return Ok(()) };
    if container.image.is_file() {
        return Ok(());
    }
    let message = format!("{} does not exist (cluster '{}')", container.image.display(), job.cluster);
    let hint = "import it with `hlrp submit image-import`, or set cluster.images.training and cluster.images.lerobot";
    Err(Problem::new("cluster.container.image", message, hint))
}

/// W&B credentials are looked for here, before hours in a queue.
fn refuse_missing_credentials(composed: &Composed) -> Result<(), Problem> {
    let basics = RunBasics::of(composed)?;
    if basics.logging.use_wandb {
        return Settings::resolve(&basics.logging.wandb).map(drop);
    }
    let is_on_in_lerobot = basics.stage == Stage::LerobotTrain
        && composed.extract::<LerobotTrainConfig>().is_ok_and(|config| config.lerobot.wandb_enable);
    match is_on_in_lerobot {
        true => Server::of_environment(None, "lerobot.wandb_enable").map(drop),
        false => Ok(()),
    }
}

fn home() -> Option<PathBuf> {
    std::env::var_os(env::HOME).map(PathBuf::from)
}

fn warn_of_readable_secrets() {
    let is_readable = |path: &Path| path.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0);
    for path in home().iter().flat_map(|home| SECRET_FILES.map(|name| home.join(name))).filter(|path| is_readable(path))
    {
        tracing::warn!("other users may read {}: chmod 600 {}", path.display(), path.display());
    }
}

/// What each Slurm allows, as far as it says so; a silent one is noticed by sbatch.
fn check_limits(submission: &Submission) -> Result<(), Problem> {
    let jobs = || preview::jobs(submission).chain(preflight_job::of(submission));
    let slurms: BTreeMap<Option<&String>, &JobPlan> =
        jobs().map(|job| (job.resources.clusters.as_ref(), job)).collect();
    for (clusters, job) in slurms {
        let slurm = submission.slurm(job);
        let Ok(limits) = slurm.limits() else { continue };
        refuse_large_array(submission, &limits)?;
        for MaxSubmit { num_jobs: most, qos } in limits.max_submit() {
            let is_counted = |job: &&JobPlan| qos.is_none() || job.resources.qos == qos;
            let num_new = jobs().filter(|job| job.resources.clusters.as_ref() == clusters).filter(is_counted).count();
            if num_new == 0 {
                continue;
            }
            let num_queued = slurm.num_queued(qos.as_deref()).unwrap_or_default();
            if num_new + num_queued > most as usize {
                let of_qos = qos.map(|name| format!(" under {name}")).unwrap_or_default();
                let message = format!(
                    "{num_new} jobs would exceed the {most} that you may have in the queue{of_qos}; {num_queued} are there"
                );
                let hint = "sweep over fewer values at a time, or wait until jobs have ended: hlrp jobs list";
                return Err(Problem::new("sweep.params", message, hint));
            }
        }
    }
    Ok(())
}

fn refuse_large_array(submission: &Submission, limits: &Limits) -> Result<(), Problem> {
    let num_runs = submission.runs.len();
    let most = limits.max_array_size.filter(|_| submission.basics.submit.array).map(|size| size as usize);
    let Some(most) = most.filter(|most| num_runs > *most) else { return Ok(()) };
    let message = format!("{num_runs} runs, but an array has at most {most} members here (MaxArraySize)");
    let hint = format!("split sweep.params into {} sweeps", num_runs.div_ceil(most));
    Err(Problem::new("submit.array", message, hint))
}

/// Asks before many jobs are planned and queued.
///
/// # Errors
/// The answer is no, or nobody is there to ask.
pub(super) fn ask(num_jobs: usize, yes: bool) -> Result<()> {
    if yes || num_jobs <= MAX_UNASKED {
        return Ok(());
    }
    let refused =
        || CommandError::new(format!("{num_jobs} jobs were not queued"), "give --yes to queue them without a question");
    if !stdin().is_terminal() {
        return Err(refused().into());
    }
    eprint_question(num_jobs)?;
    let mut answer = String::new();
    stdin().read_line(&mut answer)?;
    if answer.trim().eq_ignore_ascii_case("y") { Ok(()) } else { Err(refused().into()) }
}

fn eprint_question(num_jobs: usize) -> std::io::Result<()> {
    let mut stderr = stderr().lock();
    write!(stderr, "queue {num_jobs} jobs? [y/N] ")?;
    stderr.flush()
}
