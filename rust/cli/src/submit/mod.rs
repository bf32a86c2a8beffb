//! `hlrp submit`: runs as jobs of a Slurm cluster, or of this machine.
//!
//! | question | module |
//! |---|---|
//! | Which runs are there, and as which jobs? | [`plans`] |
//! | What does a container see? | [`mounts`] |
//! | How much does a stop cost in stage 3, which saves when LeRobot saves? | [`stage3`] |
//! | What would happen? | [`preview`] |
//! | What must hold before anything is queued? | [`preflight`] |
//! | What checks the node? | [`preflight_job`] |
//! | How do the jobs get into the queue? | [`queue`], a sweep as an array in [`mod@array`] |
//! | And without Slurm? | [`local`] |
//! | How is an image imported? | [`image_import`] |
//! | Does a site do what we need? | [`acceptance`] |
//! | How does a run that ended go on, or a submission that was cut off? | [`again`] |
//! | What of it is in the queue? | [`standing`] |

mod acceptance;
mod again;
mod array;
mod image_import;
mod local;
mod mounts;
mod options;
mod plans;
mod preflight;
mod preflight_job;
mod preview;
mod queue;
mod stage3;
mod standing;

pub(crate) use options::SubmitOptions;

use anyhow::Result;
use hlrp_schema::PlanForm;
use hlrp_track::console;
use options::OtherJob;
use std::process::ExitCode;

/// Runs the command.
///
/// # Errors
/// An invalid configuration of any run, before anything is queued; or what kept a job out of the queue, with what is in it already.
pub(crate) fn submit(options: &SubmitOptions) -> Result<ExitCode> {
    let (config, reach) = options.common();
    if let Some(code) = reach.remote.instead(config)? {
        return Ok(code);
    }
    let time_limit = reach.time_limit();
    match &options.other {
        Some(OtherJob::ImageImport { source, name, .. }) => {
            return image_import::submit(source, name, config, time_limit);
        }
        Some(OtherJob::Acceptance { .. }) => return acceptance::submit(config, time_limit),
        None => {}
    }
    if let Some(run_dir) = &options.resume {
        return again::submit_again(run_dir, &config.overrides, time_limit);
    }
    preflight::ask(plans::count(config)?, reach.remote.yes)?;
    let submission = plans::plan(config, time_limit)?;
    let settings = &submission.basics.submit;
    if submission.basics.cluster.slurm.enabled {
        array::check(&submission)?;
    }
    if settings.dry_run {
        let text = match settings.print {
            PlanForm::Text => preview::text(&submission),
            PlanForm::Json => preview::json(&submission)?,
        };
        console::print(&text);
        return Ok(ExitCode::SUCCESS);
    }
    console::init(submission.basics.logging.level.into(), 0)?;
    if !submission.basics.cluster.slurm.enabled {
        return local::run(&submission);
    }
    preflight::check(&submission)?;
    queue::submit(&submission)
}
