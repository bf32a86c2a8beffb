//! `hlrp where`: what to look at before anything is started. It is this directory and host, the allocation, what is free, the cluster option
//! that fits, and where an experiment belongs.

mod allocation;
mod fit;
mod profile;

use crate::{
    disk::disk_rules,
    doctor::{
        checks,
        report::{Finding, Report},
    },
    remote::RemoteArgs,
};
use anyhow::Result;
use clap::Args;
use hlrp_config::override_key;
use hlrp_schema::{ClusterConfig, ConfigArgs, PROJECT, RunBasics, Stage};
use hlrp_track::{
    console,
    host::{Place, hostname},
};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  hlrp where                            what this machine is
  hlrp where experiment=laq_pixel       whether that experiment fits here or belongs on the cluster, and the command
  hlrp where --remote --yes             the same question, asked on the cluster's login node";

/// Options of `hlrp where`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct WhereOptions {
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Prints where this is.
///
/// # Errors
/// With `--remote`: no way there.
pub(crate) fn run(options: &WhereOptions) -> Result<ExitCode> {
    if let Some(code) = options.remote.instead(&options.config)? {
        return Ok(code);
    }
    let report = examine(&options.config);
    console::print(&if options.json { report.to_json()? } else { report.to_text() });
    Ok(ExitCode::SUCCESS)
}

fn examine(arguments: &ConfigArgs) -> Report {
    let composed = arguments.compose();
    let site = composed.as_ref().map_err(Clone::clone).and_then(RunBasics::unchecked);
    // An experiment with an error still leaves the question where this is.
    let known = site.as_ref().ok().map(|site| site.cluster.clone()).or_else(|| without_experiment(arguments));
    let place = Place::detect(known.as_ref().and_then(|cluster| cluster.login_nodes.as_deref()));
    let profiles = profile::all(arguments);
    let place = profile::name_login_node(place, &profiles);
    let choice = profile::choose(&profiles, &place, known.as_ref());
    let gpus = hlrp_track::host::gpus();
    let mut findings = vec![
        checks::directory(),
        host(&place),
        allocation::finding(&place),
        checks::cpu(),
        checks::memory(),
        checks::gpu(&gpus),
    ];
    match &site {
        Ok(site) => {
            let rules = disk_rules(&site.cluster, &site.logging);
            findings.push(checks::disk("runs", &site.paths.runs_dir, &rules));
            findings.push(checks::disk("cache", &site.paths.cache_dir, &rules));
        }
        Err(error) => findings.push(Finding::error("config", error)),
    }
    if let (Ok(composed), Ok(_)) = (&composed, &site)
        && let Err(problem) = Stage::of(composed).and_then(|stage| stage.check(composed))
    {
        findings.push(Finding::error("config", &problem));
    }
    findings.push(choice.finding());
    if let (Ok(composed), Ok(site)) = (&composed, &site)
        && arguments.overrides.iter().any(|change| override_key(change) == PROJECT.experiments)
    {
        findings.push(fit::finding(composed, &site.cluster, &place, &gpus, &choice, &arguments.overrides));
    }
    Report { findings }
}

/// The cluster of the tree as it is, without the overrides of a command line that do not compose.
fn without_experiment(arguments: &ConfigArgs) -> Option<ClusterConfig> {
    let plain = ConfigArgs { overrides: Vec::new(), ..arguments.clone() };
    RunBasics::unchecked(&plain.compose().ok()?).ok().map(|site| site.cluster)
}

fn host(place: &Place) -> Finding {
    let host = hostname();
    match place {
        Place::Workstation => Finding::ok("host", format!("{host}, a workstation or a compute node outside of a job")),
        Place::SlurmJob { id } => Finding::ok("host", format!("{host}, a compute node, inside Slurm job {id}")),
        Place::LoginNode { reason } => {
            let hint = "submit jobs from here (hlrp submit); training is refused on login nodes";
            Finding::note("host", format!("{host}, a login node ({reason})"), Some(hint))
        }
    }
}
