//! Whether an experiment fits this machine or belongs on the cluster.

use super::profile::Choice;
use crate::doctor::{
    checks::{GIB, Gpus},
    memory_needs::MemoryNeeds,
    report::Finding,
};
use hlrp_config::{Composed, override_key};
use hlrp_schema::{ClusterConfig, PROJECT, Stage};
use hlrp_slurm::shell::quoted;
use hlrp_track::host::{Gpu, Memory, Place};

/// Most memory of a training that a CPU does in reasonable time.
const MAX_ON_CPU: u64 = 4 << 30;

/// What speaks for one side, and the command.
pub(super) fn finding(
    composed: &Composed,
    cluster: &ClusterConfig,
    place: &Place,
    gpus: &Gpus,
    choice: &Choice,
    overrides: &[String],
) -> Finding {
    const NAME: &str = "experiment";
    let stage = match Stage::of(composed) {
        Ok(stage) => stage,
        Err(error) => return Finding::error(NAME, &error),
    };
    let needs = match needs(stage, composed) {
        Ok(needs) => needs,
        Err(error) => return Finding::error(NAME, &error),
    };
    let known = match &needs {
        Some(needs) => {
            format!("about {:.1} GiB for the model, {:.1} for the loader", gib(needs.device), gib(needs.host))
        }
        None => "its memory is not estimated".to_owned(),
    };
    let verdict = fits(needs.as_ref(), place, gpus);
    let verdict = match &verdict {
        Verdict::Here(why) if cluster.slurm.enabled && !matches!(place, Place::SlurmJob { .. }) => {
            Verdict::Cluster(format!("{why}, but cluster={} is chosen", cluster.name))
        }
        _ => verdict,
    };
    let (text, command) = match verdict {
        Verdict::Here(why) => (format!("fits here: {why} ({known})"), direct(stage, overrides)),
        Verdict::Cluster(why) => {
            (format!("belongs on the cluster: {why} ({known})"), submission(cluster, choice, overrides))
        }
    };
    Finding::advice(NAME, text, command)
}

enum Verdict {
    Here(String),
    Cluster(String),
}

fn needs(stage: Stage, composed: &Composed) -> hlrp_config::Result<Option<MemoryNeeds>> {
    Ok(match stage {
        Stage::Laq => Some(MemoryNeeds::of_laq(&composed.extract_unchecked()?)),
        Stage::Vla => MemoryNeeds::of_vla(&composed.extract_unchecked()?),
        // An analysis needs less than the training before it; LeRobot and the steps of a pipeline decide themselves what they load.
        Stage::LaqAnalysis | Stage::LerobotTrain | Stage::LerobotRollout | Stage::Pipeline => None,
    })
}

fn fits(needs: Option<&MemoryNeeds>, place: &Place, gpus: &Gpus) -> Verdict {
    if matches!(place, Place::LoginNode { .. }) {
        return Verdict::Cluster("this is a login node".to_owned());
    }
    let Some(needs) = needs else { return Verdict::Here("nothing speaks against it".to_owned()) };
    let memory = Memory::detect().map_or(u64::MAX, |memory| memory.available);
    if needs.host > memory {
        return Verdict::Cluster(format!("the loader needs more than the {:.1} GiB of free memory", gib(memory)));
    }
    match gpus.iter().flatten().max_by_key(|gpu| gpu.total_mib) {
        Some(gpu) if needs.device <= gpu.total_mib << 20 => Verdict::Here(format!("on the {}", name(gpu))),
        Some(gpu) => Verdict::Cluster(format!("more than the memory of the {}", name(gpu))),
        None if needs.device > MAX_ON_CPU => Verdict::Cluster("no GPU here".to_owned()),
        None if needs.device.saturating_add(needs.host) > memory => {
            Verdict::Cluster(format!("more than the {:.1} GiB of free memory", gib(memory)))
        }
        None => Verdict::Here("small enough for the CPU".to_owned()),
    }
}

fn name(gpu: &Gpu) -> String {
    format!("{} ({:.0} GiB)", gpu.name, gib(gpu.total_mib << 20))
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / GIB
}

fn direct(stage: Stage, overrides: &[String]) -> String {
    format!("hlrp {} {}", stage.command(), shell(overrides.iter().map(String::as_str)))
}

/// The job, with a cluster if the overrides name none that has Slurm.
fn submission(cluster: &ClusterConfig, choice: &Choice, overrides: &[String]) -> String {
    let option = if cluster.slurm.enabled { Some(cluster.name.as_str()) } else { choice.for_jobs.as_deref() };
    let of_cluster = |change: &&String| override_key(change) == PROJECT.crossed_with;
    let kept = overrides.iter().filter(|change| !of_cluster(change)).map(String::as_str);
    let chosen = option.map(|option| format!("{}={option}", PROJECT.crossed_with));
    format!("hlrp submit {}", shell(kept.chain(chosen.as_deref())))
}

fn shell<'a>(arguments: impl Iterator<Item = &'a str>) -> String {
    hlrp_config::secret::redact_arguments(arguments.map(str::to_owned))
        .iter()
        .map(|a| quoted(a))
        .collect::<Vec<_>>()
        .join(" ")
}
