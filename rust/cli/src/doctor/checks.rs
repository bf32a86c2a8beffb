//! One function for each line of the report.

use super::{memory_needs::MemoryNeeds, report::Finding};
use crate::{
    disk::disk_rules,
    programs::{DATA, TRAIN_LAQ},
};
use hlrp_config::Problem;
use hlrp_schema::{ConfigArgs, LaqConfig, RunBasics};
use hlrp_track::{
    fs::{DiskRules, Free, Limit},
    host::{Cpu, Gpu, Memory, Place, hostname},
};
use std::path::{Path, PathBuf};

/// An experiment of stage 1.
struct Experiment {
    name: &'static str,
    what: &'static str,
    /// Whether a CPU trains it in reasonable time.
    fits_a_cpu: bool,
}

/// The largest first.
const EXPERIMENTS: [Experiment; 2] = [
    Experiment { name: "laq_pixel", what: "full size", fits_a_cpu: false },
    Experiment { name: "laq_tiny", what: "minutes on two CPU cores", fits_a_cpu: true },
];
pub(crate) const GIB: f64 = (1u64 << 30) as f64;

pub(crate) type Gpus = Result<Vec<Gpu>, String>;

pub(crate) fn directory() -> Finding {
    match std::env::current_dir() {
        Ok(dir) => Finding::ok("directory", dir.display().to_string()),
        Err(error) => Finding::problem("directory", format!("the working directory does not exist: {error}"), None),
    }
}

/// The root of the configuration tree, and what it says about this machine.
pub(super) type Config = Result<(PathBuf, RunBasics), Problem>;

pub(super) fn read_config(config: &ConfigArgs) -> Config {
    Ok((config.root()?, RunBasics::unchecked(&config.compose()?)?))
}

pub(super) fn detect_place(config: &Config) -> Place {
    let login_nodes = config.as_ref().ok().and_then(|(_, config)| config.cluster.login_nodes.as_deref());
    Place::detect(login_nodes)
}

pub(super) fn place(place: &Place) -> Finding {
    let host = hostname();
    match place {
        Place::Workstation => Finding::ok("host", format!("{host}, training may run here (no Slurm job)")),
        Place::SlurmJob { id } => Finding::ok("host", format!("{host}, inside Slurm job {id}")),
        Place::LoginNode { reason } => {
            let text = format!("{host}, a login node ({reason}): no training here");
            Finding::problem("host", text, Some("submit a job, or start an allocation with salloc"))
        }
    }
}

pub(crate) fn cpu() -> Finding {
    let Cpu { model, num_cores } = Cpu::detect();
    Finding::ok("cpu", format!("{model}, {num_cores} cores for this process"))
}

pub(crate) fn memory() -> Finding {
    match Memory::detect() {
        Some(Memory { total, available }) => {
            let [total, available] = [total, available].map(|bytes| bytes as f64 / GIB);
            Finding::ok("memory", format!("{total:.1} GiB, {available:.1} GiB free"))
        }
        None => Finding::note("memory", "unknown: the system has no /proc/meminfo", None),
    }
}

pub(crate) fn gpu(gpus: &Gpus) -> Finding {
    match gpus {
        Ok(gpus) if !gpus.is_empty() => {
            let line = |gpu: &Gpu| {
                let [total, free] = [gpu.total_mib, gpu.free_mib].map(|mib| mib as f64 / 1024.0);
                format!("{}, {total:.0} GiB, {free:.0} GiB free, driver {}", gpu.name, gpu.driver)
            };
            Finding::ok("gpu", gpus.iter().map(line).collect::<Vec<_>>().join("; "))
        }
        Ok(_) => Finding::note("gpu", "none: nvidia-smi lists no device", None),
        Err(reason) => Finding::note("gpu", format!("none: {reason}"), None),
    }
}

pub(super) fn libtorch(gpus: &Gpus) -> Finding {
    let facts = match TRAIN_LAQ.ask("--version-json") {
        Ok(facts) => facts,
        Err(error) => return Finding::error("libtorch", error.as_ref()),
    };
    let version = facts["libtorch"].as_str().unwrap_or("of unknown version");
    let num_devices = facts["num_cuda_devices"].as_u64().unwrap_or(0);
    if facts["cuda_available"].as_bool() == Some(true) {
        return Finding::ok("libtorch", format!("{version}, sees {num_devices} CUDA device(s)"));
    }
    let why = facts["cuda_note"].as_str().map(|note| format!(": {note}")).unwrap_or_default();
    let text = format!("{version}, CPU only{why}");
    if gpus.as_ref().is_ok_and(|gpus| !gpus.is_empty()) {
        return Finding::note(
            "libtorch",
            text,
            Some("there is a GPU, but libtorch cannot use it; is the driver new enough?"),
        );
    }
    Finding::ok("libtorch", text)
}

pub(super) fn ffmpeg() -> Finding {
    let facts = match DATA.ask("ffmpeg-info") {
        Ok(facts) => facts,
        Err(error) => return Finding::error("ffmpeg", error.as_ref()),
    };
    let Some(version) = facts["ffmpeg"].as_str() else {
        return Finding::note("ffmpeg", "none: this build reads frame caches and embedded images only", None);
    };
    let decoders = facts["decoders"].as_object().into_iter().flatten();
    let (have, lack): (Vec<_>, Vec<_>) = decoders.partition(|(_, decoder)| decoder.is_string());
    let names = |decoders: Vec<(&String, &serde_json::Value)>| {
        let one = |(codec, decoder): (&String, &serde_json::Value)| match decoder.as_str() {
            Some(decoder) if decoder != codec => format!("{codec} ({decoder})"),
            _ => codec.clone(),
        };
        decoders.into_iter().map(one).collect::<Vec<_>>().join(", ")
    };
    if lack.is_empty() {
        return Finding::ok("ffmpeg", format!("{version}, decodes {}", names(have)));
    }
    let text = format!("{version}, decodes {}, but not {}", names(have), names(lack));
    Finding::note("ffmpeg", text, Some("datasets in that codec need an FFmpeg that has its decoder"))
}

/// The configuration tree, and the disks of its `paths`.
pub(super) fn config_and_disks(config: &Config) -> Vec<Finding> {
    let (root, RunBasics { paths, logging, cluster, .. }) = match config {
        Ok(found) => found,
        Err(error) => return vec![Finding::error("config", error)],
    };
    let rules = disk_rules(cluster, logging);
    vec![
        Finding::ok("config", root.display().to_string()),
        disk("runs", &paths.runs_dir, &rules),
        disk("cache", &paths.cache_dir, &rules),
    ]
}

/// What is free below `path`, on its disk and in its quota.
pub(crate) fn disk(name: &'static str, path: &Path, rules: &DiskRules) -> Finding {
    let disk = match Free::on_disk(path).and_then(|free| free.check(path, Limit::Disk, 0, rules).map(|()| free)) {
        Ok(free) => format!("{}, {}", path.display(), amount(&free)),
        Err(error) => return Finding::error(name, &error),
    };
    let Some(command) = &rules.quota_command else { return Finding::ok(name, disk) };
    match Free::in_quota(command, path) {
        Err(reason) => Finding::note(name, format!("{disk}; quota unknown: {reason}"), None),
        Ok(quota) => match quota.check(path, Limit::Quota, 0, rules) {
            Ok(()) => Finding::ok(name, format!("{disk}; in the quota {}", amount(&quota))),
            Err(error) => Finding::error(name, &error),
        },
    }
}

fn amount(free: &Free) -> String {
    let bytes = free.bytes.map(|bytes| format!("{:.1} GiB free", bytes as f64 / GIB));
    let files = free.files.map(|files| format!("{files} files free"));
    let known: Vec<String> = bytes.into_iter().chain(files).collect();
    if known.is_empty() { "any amount free".to_owned() } else { known.join(", ") }
}

/// The largest experiment of stage 1 for which this machine has enough memory.
pub(super) fn fits(arguments: &ConfigArgs) -> Finding {
    const NAME: &str = "fits here";
    if matches!(detect_place(&read_config(arguments)), Place::LoginNode { .. }) {
        return Finding::note(NAME, "nothing: this is a login node", None);
    }
    let gpu = hlrp_track::host::gpus().iter().flatten().map(|gpu| gpu.total_mib << 20).max();
    let memory = Memory::detect().map_or(u64::MAX, |memory| memory.available);
    for Experiment { name, what, fits_a_cpu } in EXPERIMENTS {
        let mut arguments = arguments.clone();
        arguments.overrides.insert(0, format!("experiment={name}"));
        let needs = match arguments.compose().and_then(|composed| composed.extract::<LaqConfig>()) {
            Ok(config) => MemoryNeeds::of_laq(&config),
            Err(error) => return Finding::error(NAME, &error),
        };
        let total = needs.device.saturating_add(needs.host);
        let (bytes, device) = if gpu.is_some_and(|gpu| needs.device <= gpu) && needs.host <= memory {
            (needs.device, "on the GPU")
        } else if fits_a_cpu && total <= memory {
            (total, "on the CPU")
        } else {
            continue;
        };
        let gib = bytes as f64 / GIB;
        return Finding::ok(NAME, format!("hlrp train-laq experiment={name} ({what}; about {gib:.1} GiB {device})"));
    }
    Finding::note(
        NAME,
        "nothing: even the smallest experiment needs more memory",
        Some("close other programs, or lower data.loader.memory_budget_mb"),
    )
}
