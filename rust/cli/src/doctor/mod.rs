//! `hlrp doctor`: hardware, installed programs, and what can run here.

pub(crate) mod checks;
pub(crate) mod memory_needs;
pub(crate) mod report;

use anyhow::Result;
use clap::Args;
use hlrp_schema::ConfigArgs;
use hlrp_track::console;
use std::process::ExitCode;

pub(crate) use report::{Finding, Report};

/// Options of `hlrp doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Exit code: 0 if training can start here, 1 if something that it needs is missing.")]
pub(crate) struct DoctorOptions {
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Examines the machine and prints what was found.
pub(crate) fn run(options: &DoctorOptions) -> Result<ExitCode> {
    let mut report = examine(&options.config);
    report.findings.push(checks::fits(&options.config));
    console::print(&if options.json { report.to_json()? } else { report.to_text() });
    Ok(if report.is_healthy() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Examines the machine, as a configuration describes it.
pub(crate) fn examine(config_args: &ConfigArgs) -> Report {
    let gpus = hlrp_track::host::gpus();
    let config = checks::read_config(config_args);
    let place = checks::detect_place(&config);
    let mut findings = vec![
        checks::directory(),
        checks::place(&place),
        checks::cpu(),
        checks::memory(),
        checks::gpu(&gpus),
        checks::libtorch(&gpus),
        checks::ffmpeg(),
    ];
    findings.extend(checks::config_and_disks(&config));
    Report { findings }
}
