//! `hlrp submit image-import`: Enroot's import on a compute node, with the memory that it needs.

use super::{
    plans::{self, Submission},
    preflight, preview,
    queue::{self, Queued},
};
use crate::error::CommandError;
use anyhow::{Context, Result};
use hlrp_config::{Problem, secret::has_secret};
use hlrp_schema::ConfigArgs;
use hlrp_slurm::{
    plan::JobPlan,
    script::host_script,
    submission::{self, JobKind},
};
use hlrp_track::{console, fs::write_atomic};
use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

/// The script that imports, in the repository.
const SCRIPT: &str = "containers/import.sh";
/// Where it reads images.
const SOURCES: [&str; 3] = ["docker://", "podman://", "oci-archive:"];

/// Queues the import of an image, or prints its script in a dry run.
///
/// # Errors
/// A cluster without Slurm, memory or a folder of images; Slurm refuses or does not answer.
pub(super) fn submit(source: &str, name: &str, config: &ConfigArgs, time_limit: Duration) -> Result<ExitCode> {
    let mut config = config.clone();
    config.overrides.push("experiment.name=image_import".into());
    let submission = plans::plan(&config, time_limit)?;
    let job = job(&submission)?;
    refuse_source(source)?;
    if !is_name_of_an_image(name) {
        let message = format!("'{name}' is not the name of an image");
        let hint = "give a plain name of letters, digits and -_. such as hlrp-train; the date and .sqsh are added";
        return Err(CommandError::new(message, hint).into());
    }
    let command = command(&submission, job, source, name)?;
    let mut plan = job.clone();
    plan.container = None;
    let text = host_script(&plan, &command);
    let settings = &submission.basics.submit;
    if settings.dry_run {
        console::print(&preview::of_jobs(settings.print, &[(&plan, &plan.script_path(), &text)])?);
        return Ok(ExitCode::SUCCESS);
    }
    preflight::check_jobs(&submission, [&plan])?;
    queue::take(&plan.run_dir)?;
    fs::create_dir_all(&plan.submit_dir).with_context(|| format!("cannot create {}", plan.submit_dir.display()))?;
    write_atomic(&plan.script_path(), text)?;
    let slurm = submission.slurm(&plan);
    let submitted = submission::submit(&plan, &slurm, &[])?;
    submission::record(&plan, &submitted, JobKind::Run)?;
    let mut queued = Queued::default();
    queued.add(&plan, &submitted, "");
    queued.print();
    Ok(ExitCode::SUCCESS)
}

/// What `containers/import.sh` cannot read is refused before it waits in a queue.
fn refuse_source(source: &str) -> Result<(), CommandError> {
    if has_secret(source) {
        let message = "the source of the image contains a secret, which a script must not contain";
        let hint = "leave the credentials to Enroot: ~/.config/enroot/.credentials";
        return Err(CommandError::new(message.to_owned(), hint));
    }
    if SOURCES.iter().any(|kind| source.len() > kind.len() && source.starts_with(kind)) {
        return Ok(());
    }
    let hint = format!("name one that begins with {}", SOURCES.join(", "));
    Err(CommandError::new(format!("'{source}' is not the source of an image"), hint))
}

/// As `containers/import.sh` takes it.
fn is_name_of_an_image(name: &str) -> bool {
    let is_good = |char: char| char.is_ascii_alphanumeric() || "._-".contains(char);
    name.starts_with(|char: char| char.is_ascii_alphanumeric()) && name.chars().all(is_good) && !name.ends_with(".sqsh")
}

fn job(submission: &Submission) -> Result<&JobPlan> {
    let cluster = &submission.basics.cluster;
    if !cluster.slurm.enabled {
        let message = format!("'{}' has no Slurm", cluster.name);
        return Err(Problem::new("cluster", message, "choose one with CPU nodes: cluster=lrz_cpu_only").into());
    }
    if cluster.compute.mem_gb.is_none() {
        let message = "null, but an import without enough memory is killed in its middle";
        let hint = "ask for 128: cluster.compute.mem_gb=128, or choose cluster=lrz_cpu_only";
        return Err(Problem::new("cluster.compute.mem_gb", message, hint).into());
    }
    preview::jobs(submission).next().context("no job")
}

fn command(submission: &Submission, job: &JobPlan, source: &str, name: &str) -> Result<Vec<String>> {
    let cluster = &submission.basics.cluster;
    let Some(folder) = &cluster.images.dir else {
        let hint = "set it to the full path of the folder of the site's images";
        return Err(Problem::new("cluster.images.dir", "null, so there is no folder for images", hint).into());
    };
    cluster.refuse_outside("cluster.images.dir", folder)?;
    if folder.to_string_lossy().contains(|char: char| ":,".contains(char) || char.is_whitespace()) {
        let message = format!("{folder:?} has a ':', ',' or blank, which the lists of container mounts cannot hold");
        return Err(Problem::new("cluster.images.dir", message, "choose a folder without them").into());
    }
    let beside = |path: PathBuf| Some(path).filter(|path| path.is_file());
    let script = beside(job.working_dir.join(SCRIPT)).or_else(|| beside(submission.tree.parent()?.join(SCRIPT)));
    let Some(script) = script else {
        return Err(CommandError::new(format!("there is no {SCRIPT} here"), "run this in the repository").into());
    };
    Ok(vec![script.display().to_string(), source.to_owned(), folder.display().to_string(), name.to_owned()])
}
