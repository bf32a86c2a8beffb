//! The machine and the program of a session, and the configuration of its run.

use super::{session::Identity, settings::Settings};
use crate::{
    Result, TrackError,
    host::{Cpu, Memory, hostname},
    run::SlurmJob,
};
use hlrp_config::{
    foreign::read_text,
    read_yaml,
    secret::{redact, redact_arguments},
};
use serde_json::{Map, Value, json};
use std::{path::Path, process::Command};

/// File of the environment.
pub(super) const FILE_NAME: &str = "wandb-metadata.json";
/// Version of this client.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The platform in W&B's words.
pub(super) const PLATFORM: &str = "linux-x86_64";

/// What the pages Overview and System of a run show. 64-bit numbers are text, as the service expects them.
pub(super) fn metadata(settings: &Settings, writer: &str) -> Value {
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| drop(map.insert(key.to_owned(), value));
    let mut arguments = redact_arguments(std::env::args());
    let program = if arguments.is_empty() { String::new() } else { arguments.remove(0) };
    put("os", format!("Linux {}", rustix::system::uname().release().to_string_lossy()).into());
    put("startedAt", jiff::Timestamp::now().to_string().into());
    put("program", program.into());
    put("args", arguments.into());
    put("host", settings.host.clone().unwrap_or_else(hostname).into());
    if let Ok(path) = std::env::current_exe() {
        put("executable", path.display().to_string().into());
    }
    if let Ok(path) = std::env::current_dir() {
        put("root", path.display().to_string().into());
    }
    let cpu = Cpu::detect();
    put("cpu_count", cpu.num_cores.into());
    put("cpu_count_logical", cpu.num_cores.into());
    put("cpu", json!({ "model": cpu.model }));
    if let Some(memory) = Memory::detect() {
        put("memory", json!({ "total": memory.total.to_string() }));
    }
    if let Ok(disk) = rustix::fs::statvfs("/") {
        let (total, free) = (disk.f_blocks * disk.f_frsize, disk.f_bfree * disk.f_frsize);
        put("disk", json!({ "/": { "total": total.to_string(), "used": (total - free).to_string() } }));
    }
    let gpus = super::system::gpus();
    if let Some((name, _)) = gpus.first() {
        put("gpu", name.as_str().into());
        put("gpu_count", gpus.len().into());
        let each = gpus.iter().map(|(name, bytes)| json!({ "name": name, "memoryTotal": bytes.to_string() }));
        put("gpu_nvidia", each.collect());
    }
    if let Some(git) = git(settings) {
        put("git", git);
    }
    if let Some(job) = SlurmJob::from_env() {
        let fields = [
            ("job_id", Some(job.id)),
            ("cluster_name", job.cluster),
            ("partition", job.partition),
            ("nodelist", job.nodes),
        ];
        put(
            "slurm",
            fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), Value::from(value?)))).collect(),
        );
    }
    put("writerId", writer.into());
    Value::Object(map)
}

fn git(settings: &Settings) -> Option<Value> {
    let options = &settings.git;
    if options.is_disabled {
        return None;
    }
    let ask = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = options.commit.clone().or_else(|| ask(&["rev-parse", "HEAD"]))?;
    let remote = options.remote.clone().or_else(|| ask(&["remote", "get-url", "origin"])).unwrap_or_default();
    Some(json!({ "remote": redact(&remote), "commit": commit }))
}

/// The configuration of the run in `run_dir`, in which secrets are replaced already, with W&B's own block.
pub(super) fn config(run_dir: &Path, identity: &Identity, metadata: &Value) -> Result<Map<String, Value>> {
    let path = run_dir.join("config.yaml");
    let mut config = match read_text(&path) {
        Ok(text) => match read_yaml(&text, &path)? {
            Value::Object(map) => map,
            _ => Map::new(),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Map::new(),
        Err(error) => return Err(TrackError::io("read", &path)(error)),
    };
    config.insert("hlrp".to_owned(), json!({ "version": VERSION, "writer": identity.writer }));
    let block = json!({
        "cli_version": VERSION,
        "t": { "5": VERSION, "13": PLATFORM },
        "m": [],
        "e": { identity.writer.as_str(): metadata },
    });
    config.insert("_wandb".to_owned(), block);
    Ok(config)
}
