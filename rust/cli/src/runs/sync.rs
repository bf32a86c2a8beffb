//! `hlrp runs sync`: uploads runs to W&B from their logs.

use anyhow::Result;
use clap::Args;
use hlrp_config::with_hint;
use hlrp_track::{
    console,
    signals::{OnSignal, StopSignals},
    sinks::wandb::{Extent, Synced, runs_in, sync as sync_run, watch},
};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Options of the command.
#[derive(Debug, Args)]
pub(crate) struct SyncOptions {
    /// Run directories, or folders of them.
    #[arg(required = true, value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// Keep uploading what the runs record, and runs that begin later, until interrupted.
    #[arg(long)]
    watch: bool,
}

/// Uploads the runs in the folders.
pub(super) fn sync(options: &SyncOptions) -> Result<ExitCode> {
    if options.watch {
        let signals = StopSignals::listen()?;
        signals.on_signal(OnSignal::PassOn);
        watch(&options.folders, &signals, |run_dir, result| {
            report(run_dir, result);
        });
        return Ok(ExitCode::SUCCESS);
    }
    let runs = options.folders.iter().map(|folder| runs_in(folder)).collect::<Result<Vec<_>, _>>()?.concat();
    if let [run_dir] = runs.as_slice() {
        print(&sync_run(run_dir)?);
        return Ok(ExitCode::SUCCESS);
    }
    let num_failed = runs.iter().filter(|run_dir| !report(run_dir, sync_run(run_dir))).count();
    Ok(ExitCode::from(u8::from(num_failed > 0)))
}

/// Prints what became of a run, and returns whether it was uploaded.
fn report(run_dir: &Path, result: hlrp_track::Result<Synced>) -> bool {
    match result {
        Ok(synced) => print(&synced),
        Err(error) => {
            tracing::error!("{}: {}", run_dir.display(), with_hint(&error));
            return false;
        }
    }
    true
}

fn print(synced: &Synced) {
    let extent = match synced.extent {
        Extent::AlreadyThere => "was already there",
        Extent::Whole => "uploaded",
        Extent::SoFar => "uploaded so far; the run has no end yet",
    };
    console::print(&format!("{}: {extent}, {}", synced.run_dir.display(), synced.url));
}
