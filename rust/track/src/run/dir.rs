//! Creating, continuing and ending a run directory.

use super::{
    artifact::{Artifact, outputs},
    devices::Devices,
    lock::RunLock,
    manifest::{DataSource, FILE_NAME as MANIFEST, FORMER_ASIDE, FORMER_NAME, Manifest, RunStatus, Session},
    provenance::GitState,
};
use crate::{
    Result, TrackError,
    fs::{sync_dir, write_atomic},
    metrics::MetricSpec,
    time::timestamp,
};
use hlrp_config::{
    Problem,
    foreign::read_text,
    secret::{redact, redact_arguments},
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

const CONFIG: &str = "config.yaml";
const OVERRIDES: &str = "overrides.yaml";
/// Folders that a submission makes before the run starts.
const OF_SUBMISSION: [&str; 2] = ["submit", crate::fs::SUPERSEDED];
const SUBDIRS: [&str; 3] = ["checkpoints", "plots", "validation"];

/// What a program knows about the run that it starts or continues.
#[derive(Debug, Clone)]
pub struct RunInfo<'a> {
    /// Name of the program, such as `hlrp-train-laq`.
    pub program: &'a str,
    /// `experiment.name`.
    pub experiment: &'a str,
    /// `experiment.description`.
    pub description: &'a str,
    /// The resolved configuration as YAML.
    pub config_yaml: &'a str,
    /// Overrides of the command line, as typed.
    pub overrides: &'a [String],
    /// Versions of what computes: `hlrp`, `libtorch`, `ffmpeg`, …
    pub versions: BTreeMap<String, String>,
    /// Checkpoints and artifacts that this session starts from.
    pub inputs: Vec<Artifact>,
    /// Its datasets by name.
    pub data: BTreeMap<String, DataSource>,
    /// CPU threads of the tensor library; the same number gives the same bits.
    pub num_threads: usize,
    /// The metrics that the run records.
    pub metrics: Vec<MetricSpec>,
    /// A folder in the repository whose commit is recorded, such as the configuration root.
    pub repository: &'a Path,
}

impl<'a> RunInfo<'a> {
    /// The fields that every run has. Of the others, texts and lists are empty, `num_threads` is 1, and `repository` is the current folder.
    pub fn new(program: &'a str, experiment: &'a str, config_yaml: &'a str) -> Self {
        Self {
            program,
            experiment,
            description: "",
            config_yaml,
            overrides: &[],
            versions: BTreeMap::new(),
            inputs: Vec::new(),
            data: BTreeMap::new(),
            num_threads: 1,
            metrics: Vec::new(),
            repository: Path::new("."),
        }
    }
}

/// One run directory, held by this process alone.
///
/// [`RunDir::finish`] records how the run ended. A run dropped without it is recorded as failed; one killed stays `running` until it is
/// continued, which turns that into `killed`.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    manifest: Manifest,
    /// None in a process that only follows.
    lock: Option<RunLock>,
}

impl RunDir {
    /// Starts a new run in `path`, which must not exist or be empty (apart from what its submission and the Slurm job
    /// write there, and from what a run left that was killed before it started). `run.json` is written last: a run has started when it exists.
    ///
    /// # Errors
    /// An occupied directory as [`TrackError::Problem`], [`TrackError::RunLocked`], or the system's refusal.
    pub fn create(path: &Path, info: &RunInfo<'_>) -> Result<Self> {
        refuse_occupied(path)?;
        fs::create_dir_all(path).map_err(TrackError::io("create", path))?;
        let lock = RunLock::acquire(path)?;
        refuse_occupied(path)?; // another process may have come and gone in between
        for name in SUBDIRS {
            let dir = path.join(name);
            fs::create_dir_all(&dir).map_err(TrackError::io("create", &dir))?;
        }
        write_atomic(&path.join(CONFIG), info.config_yaml)?;
        write_atomic(&path.join(OVERRIDES), overrides_yaml(info.overrides))?;
        let manifest = Manifest {
            format: Manifest::FORMAT,
            program: info.program.into(),
            experiment: info.experiment.into(),
            description: redact(info.description),
            metrics: info.metrics.clone(),
            sessions: vec![session(info, path, 0, 0)?],
        };
        manifest.write(&path.join(MANIFEST))?;
        sync_dir(path)?;
        Ok(Self { path: path.to_path_buf(), manifest, lock: Some(lock) })
    }

    /// Continues the run in `path` from the checkpoint of `step`. `run.json` gets another session; a configuration that differs
    /// replaces `config.yaml`, and the former one stays as `config.superseded-<n>.yaml`.
    ///
    /// # Errors
    /// [`TrackError::NotARun`], [`TrackError::RunLocked`], an unreadable `run.json`, or the system's refusal.
    pub fn resume(path: &Path, step: u64, info: &RunInfo<'_>) -> Result<Self> {
        let not_a_run = |missing: &str| TrackError::NotARun { path: path.to_path_buf(), missing: missing.into() };
        Manifest::path(path).ok_or_else(|| not_a_run(MANIFEST))?;
        if !path.join(CONFIG).is_file() {
            return Err(not_a_run(CONFIG));
        }
        let lock = RunLock::acquire(path)?;
        let mut manifest = Manifest::read(path)?;
        if let Some(last) = manifest.sessions.last_mut()
            && last.status == RunStatus::Running
        {
            last.status = RunStatus::Killed;
        }
        replace_config(path, info.config_yaml)?;
        let session = session(info, path, manifest.sessions.len(), step)?;
        manifest.sessions.push(session);
        manifest.metrics.clone_from(&info.metrics);
        manifest.write(&path.join(MANIFEST))?;
        set_former_aside(path)?;
        Ok(Self { path: path.to_path_buf(), manifest, lock: Some(lock) })
    }

    /// The directory of a run that another process of the same run has opened; this one records nothing about it.
    ///
    /// # Errors
    /// `run.json` cannot be read.
    pub fn follow(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_path_buf(), manifest: Manifest::read(path)?, lock: None })
    }

    /// Records how the run ended, and when.
    ///
    /// # Errors
    /// `run.json` cannot be written.
    pub fn finish(mut self, status: RunStatus) -> Result<()> {
        self.end_session(status)
    }

    /// Records something that the run leaves besides its own checkpoints and artifacts.
    pub fn add_output(&mut self, output: Artifact) {
        if let Some(session) = self.manifest.sessions.last_mut() {
            session.outputs.push(output);
        }
    }

    /// Records what is wrong with what the run trained.
    pub fn set_verdict(&mut self, verdict: &str) {
        if let Some(session) = self.manifest.sessions.last_mut() {
            session.verdict = Some(verdict.to_owned());
        }
    }

    /// Records where else the run is recorded: the address at `service`.
    pub fn add_link(&mut self, service: &str, address: &str) {
        if let Some(session) = self.manifest.sessions.last_mut() {
            session.links.insert(service.to_owned(), redact(address));
        }
    }

    fn end_session(&mut self, status: RunStatus) -> Result<()> {
        if self.lock.is_none() {
            return Ok(());
        }
        if let Some(session) = self.manifest.sessions.last_mut() {
            session.status = match status {
                RunStatus::Failed { reason, exit_code } => RunStatus::Failed { reason: redact(&reason), exit_code },
                other => other,
            };
            session.outputs.splice(0..0, outputs(&self.path));
            session.ended_at = Some(timestamp());
        }
        self.manifest.write(&self.path.join(MANIFEST))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is recorded about the run.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Folder of the checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// Folder of the artifacts, the input of the next stage; the first artifact creates it.
    pub fn artifacts(&self) -> PathBuf {
        self.path.join("artifacts")
    }

    /// Folder of the plots of the whole run.
    pub fn plots(&self) -> PathBuf {
        self.path.join("plots")
    }

    /// The log file, for [`crate::console::log_to`].
    pub fn log_file(&self) -> PathBuf {
        self.path.join("unified.log")
    }

    /// Folder of the validation after `step` optimizer steps; it is created.
    ///
    /// # Errors
    /// The system refuses.
    pub fn validation(&self, step: u64) -> Result<PathBuf> {
        validation_dir(&self.path, step)
    }
}

/// As [`RunDir::validation`], of the run in `run_dir`.
///
/// # Errors
/// The system refuses.
pub fn validation_dir(run_dir: &Path, step: u64) -> Result<PathBuf> {
    let dir = run_dir.join("validation").join(format!("step-{step:06}"));
    fs::create_dir_all(&dir).map_err(TrackError::io("create", &dir))?;
    Ok(dir)
}

impl Drop for RunDir {
    fn drop(&mut self) {
        let running = |session: &Session| session.status == RunStatus::Running;
        if self.manifest.sessions.last().is_some_and(running) {
            let reason = "the program ended without recording a result".into();
            if let Err(error) = self.end_session(RunStatus::Failed { reason, exit_code: None }) {
                tracing::error!("{error}");
            }
        }
    }
}

/// Refuses a directory with entries other than those that a Slurm job creates before its program starts, unless all of them are
/// what a run leaves that was killed before `run.json` was written: such a run never started.
fn refuse_occupied(path: &Path) -> Result<()> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(TrackError::io("list", path))?,
    };
    let has_lock = path.join(super::lock::FILE_NAME).is_file();
    for entry in entries {
        let name = entry.map_err(TrackError::io("list", path))?.file_name();
        let name = name.to_string_lossy();
        let of_slurm = [".out", ".err"].iter().any(|end| name.ends_with(end)) || OF_SUBMISSION.contains(&&*name);
        let of_beginning = name == super::lock::FILE_NAME || (has_lock && is_of_beginning(path, &name));
        if !of_slurm && !of_beginning {
            let path = path.display();
            let message = format!("the run directory {path} is not empty (it contains {name})");
            let hint = format!("continue that run with --resume {path}, or choose another directory");
            return Err(Problem::new("logging.run_dir", message, hint).into());
        }
    }
    Ok(())
}

/// Whether [`RunDir::create`] makes such an entry before `run.json`.
fn is_of_beginning(path: &Path, name: &str) -> bool {
    let is_empty = || fs::read_dir(path.join(name)).is_ok_and(|mut entries| entries.next().is_none());
    let is_partial = || name.starts_with('.') && name.ends_with(".partial");
    [CONFIG, OVERRIDES].contains(&name)
        || name == patch_name(0)
        || (SUBDIRS.contains(&name) && is_empty())
        || is_partial()
}

/// The record of session `index` of the run in `path`, which begins now.
fn session(info: &RunInfo<'_>, path: &Path, index: usize, start_step: u64) -> Result<Session> {
    Ok(Session {
        status: RunStatus::Running,
        started_at: timestamp(),
        ended_at: None,
        start_step,
        command: redact_arguments(std::env::args()),
        overrides: redact_arguments(info.overrides.iter().cloned()),
        working_dir: std::env::current_dir().ok(),
        inputs: info.inputs.clone(),
        data: info.data.clone(),
        outputs: Vec::new(),
        verdict: None,
        links: BTreeMap::new(),
        versions: info.versions.clone(),
        git: GitState::record(info.repository, path, &patch_name(index))?,
        host: crate::host::hostname(),
        devices: Some(Devices::detect()),
        num_threads: info.num_threads,
        slurm: super::manifest::SlurmJob::from_env(),
    })
}

/// Where session `index` keeps how the working tree differed from its commit.
fn patch_name(index: usize) -> String {
    format!("git-{}.patch", index + 1)
}

/// Renames the file of format 1, whose content is in `run.json` now.
fn set_former_aside(path: &Path) -> Result<()> {
    let former = path.join(FORMER_NAME);
    match fs::rename(&former, path.join(FORMER_ASIDE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(TrackError::io("rename", &former)(error)),
        _ => Ok(()),
    }
}

fn replace_config(path: &Path, config_yaml: &str) -> Result<()> {
    let current = path.join(CONFIG);
    let former = read_text(&current).map_err(TrackError::io("read", &current))?;
    if former == config_yaml {
        return Ok(());
    }
    let aside = (1..).map(|number| path.join(format!("config.superseded-{number}.yaml"))).find(|path| !path.exists());
    if let Some(aside) = aside {
        write_atomic(&aside, former)?;
    }
    write_atomic(&current, config_yaml)
}

/// A YAML list; JSON strings are YAML strings.
fn overrides_yaml(overrides: &[String]) -> String {
    if overrides.is_empty() {
        return "[]\n".into();
    }
    redact_arguments(overrides.iter().cloned())
        .iter()
        .map(|text| format!("- {}\n", serde_json::Value::from(text.as_str())))
        .collect()
}
