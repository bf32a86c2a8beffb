//! The Slurm allocation that this process is in.

use crate::{doctor::report::Finding, env};
use hlrp_track::{command::output_within, env::get, host::Place, run::SlurmJob, time::unix_time};
use std::{process::Command, time::Duration};

const NAME: &str = "allocation";
/// How long Slurm may take to say how much time is left.
const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn finding(place: &Place) -> Finding {
    match (place, SlurmJob::from_env()) {
        (Place::SlurmJob { .. }, Some(job)) => Finding::ok(NAME, describe(&job)),
        _ => Finding::ok(NAME, "none: not inside a Slurm job"),
    }
}

fn describe(job: &SlurmJob) -> String {
    let named = [("cluster", &job.cluster), ("partition", &job.partition), ("nodes", &job.nodes)];
    let named = named.into_iter().filter_map(|(what, name)| Some(format!("{what} {}", name.as_ref()?)));
    let gpus = get(env::CUDA_VISIBLE_DEVICES).map(|devices| format!("GPUs {devices}"));
    let gpus = gpus.or_else(|| get(env::SLURM_GPUS_ON_NODE).map(|count| format!("{count} GPUs")));
    let left = time_left(&job.id).unwrap_or_else(|| "unknown time".to_owned());
    let parts: Vec<String> = std::iter::once(format!("job {}", job.id)).chain(named).chain(gpus).collect();
    format!("{}, {left} left", parts.join(", "))
}

/// What is left until the job's time limit: from its environment, else from Slurm.
fn time_left(id: &str) -> Option<String> {
    let now = unix_time() as u64;
    if let Some(end) = get(env::SLURM_JOB_END_TIME).and_then(|end| end.parse::<u64>().ok()) {
        return Some(hours(end.saturating_sub(now)));
    }
    let mut squeue = Command::new("squeue");
    let output = output_within(squeue.args(["--noheader", "--format=%L", "--jobs", id]), TIMEOUT).ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// `H:MM:SS`.
fn hours(seconds: u64) -> String {
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
