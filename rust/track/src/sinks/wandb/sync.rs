//! Uploads runs from their logs: those recorded offline, and what an outage has left.

use super::{
    session::{FOLDER, Identity},
    settings::{Server, Timing, USE_WANDB},
    upload::{Next, Upload},
};
use crate::{Result, TrackError, signals::StopSignals};
use hlrp_config::{Problem, foreign::read_text, read_yaml};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// Attempts one after the other before an upload is given up.
const MAX_FAILURES: u32 = 6;
/// Pause between two looks at the runs that are watched.
const POLL: Duration = Duration::from_secs(1);

/// What was uploaded of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synced {
    /// The run directory.
    pub run_dir: PathBuf,
    /// Its page.
    pub url: String,
    /// How far.
    pub extent: Extent,
}

/// How much of a run the service has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// It had everything before.
    AlreadyThere,
    /// Everything, with the end of the run.
    Whole,
    /// Everything that the run has recorded so far; it has no end yet.
    SoFar,
}

/// The run directories in or below `folder`, at most one level below, that were recorded for W&B.
///
/// # Errors
/// There are none.
pub fn runs_in(folder: &Path) -> Result<Vec<PathBuf>, Problem> {
    let is_run = |path: &Path| match Identity::read(path) {
        Ok(identity) => identity.is_some_and(|identity| !identity.sessions.is_empty()),
        Err(_) => path.join(FOLDER).is_dir(),
    };
    if let Ok(Some(identity)) = Identity::read(folder)
        && identity.sessions.is_empty()
    {
        let message = format!("the official client records the W&B run '{}' of {}", identity.id, folder.display());
        let hint = "upload its folders with `wandb sync`; `hlrp runs show` names them";
        return Err(Problem::new("DIR", message, hint));
    }
    if is_run(folder) {
        return Ok(vec![folder.to_path_buf()]);
    }
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let mut found: Vec<PathBuf> = entries.filter(|path| path.is_dir() && is_run(path)).collect();
    found.sort();
    match found.is_empty() {
        false => Ok(found),
        true => {
            let message = format!("{} contains no run that was recorded for W&B", folder.display());
            let hint = "give run directories, or a folder of them; a run is recorded with logging.use_wandb=true";
            Err(Problem::new("DIR", message, hint))
        }
    }
}

/// Uploads what the service lacks of the run in `run_dir`.
///
/// # Errors
/// No credentials, a service that refuses the run or does not answer, or another process that uploads it.
pub fn sync(run_dir: &Path) -> Result<Synced> {
    let mut upload = open(run_dir)?;
    let synced = |upload: &Upload, extent| Synced {
        run_dir: run_dir.to_path_buf(),
        url: upload.url().unwrap_or_default().to_owned(),
        extent,
    };
    if upload.is_complete() {
        return Ok(synced(&upload, Extent::AlreadyThere));
    }
    loop {
        match upload.pump(true)? {
            Next::Finished => return Ok(synced(&upload, Extent::Whole)),
            Next::UpToDate => return Ok(synced(&upload, Extent::SoFar)),
            Next::Wait(_) if upload.num_failures() >= MAX_FAILURES => {
                let reason = format!("no success in {MAX_FAILURES} attempts; nothing is lost, run it again later");
                return Err(TrackError::Wandb { reason });
            }
            Next::Wait(time) => thread::sleep(time.saturating_duration_since(Instant::now())),
        }
    }
}

/// Uploads the runs in `folders`, also those that begin later, as they are recorded, until a signal arrives. `report` gets each run when its
/// end is uploaded, and every error.
///
/// # Errors
/// None: what concerns one run is reported.
pub fn watch(folders: &[PathBuf], signals: &StopSignals, mut report: impl FnMut(&Path, Result<Synced>)) {
    let mut uploads: BTreeMap<PathBuf, Watched> = BTreeMap::new();
    while !signals.is_requested() {
        for run_dir in folders.iter().flat_map(|folder| runs_in(folder).unwrap_or_default()) {
            uploads.entry(run_dir).or_insert(Watched::New);
        }
        for (run_dir, watched) in &mut uploads {
            if let Some(result) = watched.proceed(run_dir) {
                report(run_dir, result);
            }
        }
        thread::sleep(POLL);
    }
}

/// A run that is watched.
enum Watched {
    New,
    Open(Box<Upload>),
    /// Uploaded, with so many sessions; another one may follow.
    Done(usize),
    /// Tried again after this time.
    Failed(Instant),
}

impl Watched {
    fn proceed(&mut self, run_dir: &Path) -> Option<Result<Synced>> {
        let num_sessions = || Identity::read(run_dir).ok().flatten().map_or(0, |identity| identity.sessions.len());
        let failed = |error| (Self::Failed(Instant::now() + 60 * POLL), Some(Err(error)));
        let (next, result) = match self {
            Self::Failed(time) if *time > Instant::now() => return None,
            Self::Done(num) if *num >= num_sessions() => return None,
            Self::New | Self::Failed(_) | Self::Done(_) => match open(run_dir) {
                Ok(upload) if upload.is_complete() => (Self::Done(num_sessions()), None),
                Ok(upload) => (Self::Open(Box::new(upload)), None),
                Err(error) => failed(error),
            },
            Self::Open(upload) => match upload.pump(false) {
                Ok(Next::Finished) => {
                    let url = upload.url().unwrap_or_default().to_owned();
                    let synced = Synced { run_dir: run_dir.to_path_buf(), url, extent: Extent::Whole };
                    (Self::Done(num_sessions()), Some(Ok(synced)))
                }
                Ok(_) => return None,
                Err(error) => failed(error),
            },
        };
        *self = next;
        result
    }
}

fn open(run_dir: &Path) -> Result<Upload> {
    let identity = Identity::read(run_dir)?;
    let server = Server::of_environment(identity.map(|identity| identity.base_url), USE_WANDB)?;
    Upload::new(run_dir, server, timing(run_dir)?, None)
}

/// The intervals that the run was started with.
fn timing(run_dir: &Path) -> Result<Timing> {
    let path = run_dir.join("config.yaml");
    let text = read_text(&path).map_err(TrackError::io("read", &path))?;
    let config = read_yaml(&text, &path)?;
    serde_json::from_value(config["logging"]["wandb"].clone()).map_err(|error| {
        let reason = format!("logging.wandb: {error}");
        TrackError::Malformed { path, line: None, reason }
    })
}
