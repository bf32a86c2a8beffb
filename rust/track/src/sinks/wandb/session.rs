//! Where the records of a run are: one folder for each session, all under one run id.
//!
//! `<run>/wandb/run.json` has the id and the list of sessions. What a session has recorded is read from its log, never from a note beside it.

use super::{
    log::LogReader,
    record::{Kind, Record},
    settings::{Mode, Settings},
};
use crate::{
    Result, TrackError, env,
    fs::{sync_dir, write_atomic},
};
use hlrp_config::{Problem, foreign::read_text};
use jiff::{ToSpan, Zoned};
use prost::Message;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

/// Folder in the run directory.
pub(super) const FOLDER: &str = "wandb";
const FILE_NAME: &str = "run.json";
/// Characters of a run id, as the official client makes them.
const ID_LENGTH: usize = 8;

/// The run as W&B knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// Id of the run.
    pub(super) id: String,
    /// Distinguishes this run directory from others that used the same id.
    pub(super) writer: String,
    /// The server that it was meant for.
    pub(super) base_url: String,
    /// The folders of its sessions, oldest first; relative ones are in the run directory.
    pub(super) sessions: Vec<PathBuf>,
}

impl Identity {
    /// That of the run in `run_dir`; none where it was never recorded for W&B.
    ///
    /// # Errors
    /// The file cannot be read, or has another content.
    pub(super) fn read(run_dir: &Path) -> Result<Option<Self>> {
        let path = run_dir.join(FOLDER).join(FILE_NAME);
        match read_text(&path) {
            Ok(text) => serde_json::from_str(&text).map(Some).map_err(|error| TrackError::Malformed {
                path,
                line: Some(error.line()),
                reason: error.to_string(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(TrackError::io("read", &path)(error)),
        }
    }

    /// That of the run in `run_dir`, which is new or continues.
    fn of(run_dir: &Path, settings: &Settings) -> Result<Self> {
        if let Some(known) = Self::read(run_dir)? {
            known.ensure_same(settings, run_dir)?;
            return Ok(known);
        }
        let random = random_text();
        let (id, writer) = random.split_at(ID_LENGTH);
        Ok(Self {
            id: settings.run_id.clone().unwrap_or_else(|| id.to_owned()),
            writer: writer.to_owned(),
            base_url: settings.server.base_url.clone(),
            sessions: Vec::new(),
        })
    }

    /// That of the run in `run_dir`, kept there for all its sessions.
    ///
    /// # Errors
    /// As [`Session::start`].
    pub(super) fn kept(run_dir: &Path, settings: &Settings) -> Result<Self> {
        let home = run_dir.join(FOLDER);
        fs::create_dir_all(&home).map_err(TrackError::io("create", &home))?;
        let identity = Self::of(run_dir, settings)?;
        identity.write(run_dir)?;
        sync_dir(&home)?;
        Ok(identity)
    }

    /// # Errors
    /// The settings have another id than this run in `run_dir`.
    pub(super) fn ensure_same(&self, settings: &Settings, run_dir: &Path) -> Result<(), Problem> {
        match &settings.run_id {
            Some(id) if *id != self.id => {
                let message = format!("'{id}', but {} is the W&B run '{}'", run_dir.display(), self.id);
                Err(Problem::new(env::WANDB_RUN_ID, message, "unset it: a run keeps its id"))
            }
            _ => Ok(()),
        }
    }

    fn write(&self, run_dir: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        write_atomic(&run_dir.join(FOLDER).join(FILE_NAME), text + "\n")
    }

    /// The sessions of the run in `run_dir`.
    pub(super) fn sessions(&self, run_dir: &Path) -> Vec<Session> {
        self.sessions.iter().map(|folder| Session::at(run_dir.join(folder), &self.id)).collect()
    }
}

/// Random letters and digits: the numbers of Rust's hash maps come from the system.
fn random_text() -> String {
    use std::hash::{BuildHasher, RandomState};
    let seed = RandomState::new().hash_one((std::process::id(), Zoned::now().timestamp().as_nanosecond()));
    let digest = Sha256::digest(seed.to_le_bytes());
    digest.iter().map(|byte| char::from(b"abcdefghijklmnopqrstuvwxyz0123456789"[usize::from(byte % 36)])).collect()
}

/// The folder of one session.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Session {
    pub(super) folder: PathBuf,
    /// The `.wandb` file.
    pub(super) log: PathBuf,
}

impl Session {
    fn at(folder: PathBuf, id: &str) -> Self {
        let log = folder.join(format!("run-{id}.wandb"));
        Self { folder, log }
    }

    /// Base of all paths in file records.
    pub(super) fn files(&self) -> PathBuf {
        self.folder.join("files")
    }

    /// Starts a session of the run in `run_dir`: its folder, and its entry in the list. Returns the identity and the earlier sessions as well.
    ///
    /// # Errors
    /// The folders cannot be written, or the id of the run is another.
    pub(super) fn start(run_dir: &Path, settings: &Settings) -> Result<(Self, Identity, Past)> {
        let home = run_dir.join(FOLDER);
        fs::create_dir_all(&home).map_err(TrackError::io("create", &home))?;
        let mut identity = Identity::of(run_dir, settings)?;
        let earlier = identity.sessions(run_dir);
        let past = Past::read(&earlier)?;
        let parent = match &settings.dir {
            Some(dir) => std::path::absolute(dir).map_err(TrackError::io("resolve", dir))?.join(FOLDER),
            None => PathBuf::from(FOLDER),
        };
        let prefix = if settings.mode == Mode::Offline { "offline-run" } else { "run" };
        let mut time = Zoned::now();
        let folder = loop {
            let folder = parent.join(format!("{prefix}-{}-{}", time.strftime("%Y%m%d_%H%M%S"), identity.id));
            let path = run_dir.join(&folder);
            fs::create_dir_all(path.parent().unwrap_or(&path)).map_err(TrackError::io("create", &path))?;
            match fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => time = &time + 1.second(),
                created => {
                    created.map_err(TrackError::io("create", &path))?;
                    break folder;
                }
            }
        };
        let session = Self::at(run_dir.join(&folder), &identity.id);
        fs::create_dir(session.files()).map_err(TrackError::io("create", &session.files()))?;
        if let Some(last) = earlier.last() {
            // The page of a run shows the text of all its sessions.
            let _ = fs::copy(last.files().join(super::OUTPUT), session.files().join(super::OUTPUT));
        }
        identity.sessions.push(folder);
        identity.write(run_dir)?;
        sync_dir(&home)?;
        Ok((session, identity, past))
    }
}

/// What the earlier sessions of a run have recorded.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Past {
    /// The last step with a row.
    pub(super) last_step: Option<u64>,
    /// The keys of that row.
    pub(super) last_keys: BTreeSet<String>,
    /// The summary.
    pub(super) summary: Map<String, Value>,
    /// Seconds that they took together.
    pub(super) runtime: f64,
}

impl Past {
    fn read(sessions: &[Session]) -> Result<Self> {
        let mut past = Self::default();
        for session in sessions {
            let mut reader = match LogReader::open(&session.log) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                reader => reader.map_err(TrackError::io("read", &session.log))?,
            };
            while let Some(bytes) = reader.next().map_err(TrackError::io("read", &session.log))? {
                past.add(Record::decode(bytes.as_slice()).unwrap_or_default());
            }
        }
        Ok(past)
    }

    fn add(&mut self, record: Record) {
        match record.kind {
            Some(Kind::History(row)) => {
                self.last_step = row.step().max(self.last_step);
                self.last_keys = row.item.iter().map(|item| item.path().join(".")).collect();
                let runtime = row.item.iter().find(|item| item.key == "_runtime");
                self.runtime = runtime.and_then(|item| item.value().as_f64()).unwrap_or_default().max(self.runtime);
            }
            Some(Kind::Summary(update)) => {
                update.update.iter().for_each(|item| set(&mut self.summary, &item.path(), item.value()));
            }
            _ => {}
        }
    }
}

/// Sets the value under a path of keys.
pub(super) fn set(map: &mut Map<String, Value>, path: &[&str], value: Value) {
    match path {
        [] => {}
        [key] => drop(map.insert((*key).to_owned(), value)),
        [key, rest @ ..] => {
            let inner = map.entry(*key).or_insert_with(|| Value::Object(Map::new()));
            if !inner.is_object() {
                *inner = Value::Object(Map::new());
            }
            if let Some(inner) = inner.as_object_mut() {
                set(inner, rest, value);
            }
        }
    }
}
