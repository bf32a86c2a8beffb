//! Sends the records of a run to W&B. The logs are the queue: whatever is not sent yet is in them, and one that grows is followed.
//!
//! What the service has already is asked of the service, when the upload starts: rows are continued after its last step, system metrics
//! after its last sample, console lines after its number of lines. So a record is sent once, however often an upload is interrupted, and by
//! whichever program it is continued.

mod access;
mod api;
mod backoff;
mod files;
mod logs;
mod online;
mod open;
mod stream;

pub(in crate::sinks::wandb) use access::{check_access, check_exists};
pub(in crate::sinks::wandb) use online::Uploader;

use super::{
    PageStop, notice,
    record::{Kind, Record, Run},
    session::{FOLDER, Identity},
    settings::{Mode, Server, Settings, Timing},
};
use crate::{Result, TrackError, fs::write_atomic, run::RunLock};
use api::{Api, Failure};
use backoff::Backoff;
use files::{Files, Uploaded};
use hlrp_config::foreign::read_text;
use logs::Logs;
use open::Open;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Where an upload keeps what it must know to go on.
const STATE_FILE: &str = "upload.json";
/// A sign of life.
const HEARTBEAT: &str = "{}";

/// What an upload keeps in [`STATE_FILE`].
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct State {
    /// Console lines that the service had before the first of this run; none before the first upload.
    lines_before: Option<u64>,
    /// What is added to the steps of this run, because another run of this id came before it.
    step_shift: u64,
    /// Sessions whose end the service has.
    num_finished: usize,
    files: Uploaded,
    /// Page of the run.
    url: String,
}

/// The upload of one run.
pub(super) struct Upload {
    run_dir: PathBuf,
    api: Api,
    timing: Timing,
    state: State,
    logs: Logs,
    writer: String,
    /// One upload of a run at a time.
    _lock: RunLock,
    open: Option<Open>,
    /// The run record that the service does not have yet.
    run: Option<Run>,
    files: Files,
    exit: Option<i32>,
    /// The request that is repeated until it succeeds, and whether it ends the run.
    in_flight: Option<(String, bool)>,
    last_request: Option<Instant>,
    last_data: Option<Instant>,
    backoff: Backoff,
    /// None where another process trains.
    stop: Option<PageStop>,
}

/// What an upload does next.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Next {
    /// Something, not before this time.
    Wait(Instant),
    /// Everything that the logs have is sent.
    UpToDate,
    /// The end of the run is sent.
    Finished,
}

impl Upload {
    /// The upload of the run in `run_dir`.
    ///
    /// # Errors
    /// The run was never recorded for W&B, or another process uploads it.
    pub(super) fn new(run_dir: &Path, server: Server, timing: Timing, stop: Option<PageStop>) -> Result<Self> {
        let home = run_dir.join(FOLDER);
        let identity = Identity::read(run_dir)?
            .ok_or_else(|| TrackError::NotARun { path: run_dir.to_path_buf(), missing: "wandb/run.json".to_owned() })?;
        let lock = RunLock::acquire(&home)?;
        let state = match read_text(&home.join(STATE_FILE)) {
            Ok(text) => serde_json::from_str(&text).unwrap_or_default(),
            Err(_) => State::default(),
        };
        let refused = |failure: Failure| TrackError::Wandb { reason: failure.reason().to_owned() };
        Ok(Self {
            run_dir: run_dir.to_path_buf(),
            api: Api::new(server).map_err(refused)?,
            timing,
            state,
            logs: Logs::new(run_dir, &identity),
            writer: identity.writer,
            _lock: lock,
            open: None,
            run: None,
            files: Files::new(),
            exit: None,
            in_flight: None,
            last_request: None,
            last_data: None,
            backoff: Backoff::default(),
            stop,
        })
    }

    /// Page of the run, once the service has it.
    pub(super) fn url(&self) -> Option<&str> {
        Some(self.state.url.as_str()).filter(|url| !url.is_empty())
    }

    /// Attempts that have failed one after the other.
    pub(super) fn num_failures(&self) -> u32 {
        self.backoff.num_failures
    }

    /// Whether the service has the ends of all sessions.
    pub(super) fn is_complete(&self) -> bool {
        self.state.num_finished == self.logs.num_sessions()
    }

    /// The next attempt need not wait.
    pub(super) fn hurry(&mut self) {
        self.backoff.not_before = None;
    }

    /// Does what is due. When `is_closing`, data does not wait until it may be sent with more.
    ///
    /// # Errors
    /// The service refuses the run, or a log cannot be read: nothing more can be sent.
    pub(super) fn pump(&mut self, is_closing: bool) -> Result<Next> {
        if let Some(time) = self.backoff.not_before.filter(|time| *time > Instant::now()) {
            return Ok(Next::Wait(time));
        }
        match self.act(is_closing) {
            Ok(next) => {
                if self.backoff.num_failures > 0 {
                    notice::inform("W&B answers again");
                    self.backoff = Backoff::default();
                }
                Ok(next)
            }
            Err(Step::Failed(Failure::Again { after, reason })) => {
                let pause = self.backoff.failed(&self.timing, after);
                if self.backoff.num_failures == 1 {
                    notice::warn(&format!("W&B: {reason}; everything is kept on disk and sent when it answers"));
                }
                Ok(Next::Wait(pause))
            }
            Err(Step::Failed(Failure::Refused { reason, .. })) => Err(TrackError::Wandb { reason }),
            Err(Step::Track(error)) => Err(error),
        }
    }

    fn act(&mut self, is_closing: bool) -> Result<Next, Step> {
        self.read()?;
        if self.run.is_some() {
            self.upsert()?;
            self.read()?;
        }
        let is_over = self.exit.is_some();
        let are_files_due = is_closing || is_over || self.files.is_due();
        if !self.files.is_empty() && are_files_due && self.open.is_some() {
            self.upload_files()?;
        }
        let Some(open) = &mut self.open else { return Ok(self.idle(is_closing)) };
        if self.in_flight.is_none() {
            let interval = Duration::from_secs_f64(self.timing.upload_interval_s);
            let is_due = is_closing
                || is_over
                || open.stream.is_urgent()
                || self.last_data.is_none_or(|time| time.elapsed() >= interval);
            let heartbeat = Duration::from_secs_f64(self.timing.heartbeat_interval_s);
            // The process that records the run speaks for it; another one cannot know whether it lives.
            let is_silent = self.stop.is_some() && self.last_request.is_some_and(|time| time.elapsed() >= heartbeat);
            if !open.stream.is_empty() && is_due {
                self.in_flight = Some((open.stream.take(None), false));
            } else if is_silent && !is_over {
                self.in_flight = Some((HEARTBEAT.to_owned(), false));
            } else if is_over && self.files.is_empty() {
                return self.end();
            }
        }
        if self.in_flight.is_some() {
            self.send()?;
            return Ok(Next::Wait(Instant::now()));
        }
        Ok(self.idle(is_closing))
    }

    /// Nothing is due.
    fn idle(&self, is_closing: bool) -> Next {
        let is_waiting = self.open.as_ref().is_some_and(|open| !open.stream.is_empty()) || !self.files.is_empty();
        match is_closing || !is_waiting {
            true => Next::UpToDate,
            false => Next::Wait(Instant::now() + Duration::from_millis(500)),
        }
    }

    /// Reads records until a request is full, the service must have a run record first, or the logs end.
    fn read(&mut self) -> Result<(), Step> {
        let is_full = |open: &Option<Open>| open.as_ref().is_some_and(|open| open.stream.is_full());
        while self.run.is_none() && self.exit.is_none() && !is_full(&self.open) {
            match self.logs.next()? {
                Some(record) => self.take(record),
                None => break,
            }
        }
        Ok(())
    }

    fn take(&mut self, record: Record) {
        let Some(kind) = record.kind else { return };
        match (kind, &mut self.open) {
            (Kind::Run(run), _) => self.run = Some(run),
            (Kind::Exit(exit), open) => {
                self.exit = Some(exit.exit_code);
                if let Some(open) = open {
                    open.stream.end_at(exit.runtime);
                }
            }
            (Kind::Files(files), _) => files.files.iter().for_each(|file| self.add_file(&file.path)),
            (Kind::Preempting(_), Some(open)) => open.stream.preempting(),
            (kind, Some(open)) => open.take(kind, self.state.step_shift),
            (_, None) => {}
        }
    }

    /// A file of the session that is read is to be uploaded, once.
    fn add_file(&mut self, name: &str) {
        let session = self.logs.current();
        if let Some(folder) = self.logs.files()
            && self.files.is_wanted(session, name, &self.state.files)
        {
            self.files.add(session, &folder, name);
        }
    }

    /// Creates the run, or tells the service about the session that continues it.
    fn upsert(&mut self) -> Result<(), Step> {
        let Some(run) = &self.run else { return Ok(()) };
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let entity = given(&run.entity);
        let mut config: Map<String, Value> = Map::new();
        for item in run.config.iter().flat_map(|config| &config.update) {
            config.insert(item.path().join("."), json!({ "value": item.value() }));
        }
        let known = match &self.open {
            Some(_) => None,
            None => self.api.resume_status(entity.as_deref(), &run.project, &run.run_id)?,
        };
        let earlier = self.open.as_ref().map(|open| &open.config).or(known.as_ref().map(|bucket| &bucket.config));
        for (key, value) in earlier.into_iter().flatten() {
            config.entry(key).or_insert_with(|| value.clone());
        }
        let place = self.open.as_ref().map(|open| &open.place);
        let id = place.map(|place| &place.storage_id).or(known.as_ref().map(|bucket| &bucket.storage_id));
        let metadata = &config["_wandb"]["value"]["e"][&self.writer];
        let git = run.git.as_ref();
        let variables = json!({
            "id": id,
            "name": run.run_id,
            "project": run.project,
            "entity": entity,
            "groupName": given(&run.run_group),
            "displayName": given(&run.display_name),
            "jobType": given(&run.job_type),
            "notes": given(&run.notes),
            "tags": Some(&run.tags).filter(|tags| !tags.is_empty()),
            "config": Value::Object(config.clone()).to_string(),
            "host": given(&run.host),
            "program": metadata["program"],
            "repo": git.and_then(|git| given(&git.remote_url)),
            "commit": git.and_then(|git| given(&git.commit)),
        });
        let (place, is_new) = self.api.upsert(&variables)?;
        let start_time = run.start_time.as_ref().map_or(0.0, |time| time.seconds());
        match &mut self.open {
            Some(open) => (open.config, open.start_time) = (config, start_time),
            None => {
                let bucket = known.unwrap_or_default();
                if is_new {
                    // It was never there, or a user has deleted it.
                    self.state = State::default();
                }
                if self.state.lines_before.is_none() {
                    let is_ours = bucket.config.get("hlrp").is_some_and(|hlrp| hlrp["value"]["writer"] == *self.writer);
                    let is_other = !is_new && !is_ours && run.starting_step == 0;
                    self.state.lines_before = Some(if is_ours || is_new { 0 } else { bucket.num_lines });
                    self.state.step_shift = bucket.last_step.filter(|_| is_other).unwrap_or(0);
                }
                self.state.url = self.api.server().run_page(&place.entity, &place.project, &place.run);
                let mut open = Open::new(place, bucket, config, start_time, self.state.lines_before);
                // The last upload may have ended before it said so.
                let uploaded = self.state.files.iter().filter_map(|file| file.split_once('/'));
                uploaded.for_each(|(_, name)| open.stream.uploaded(name.to_owned()));
                self.open = Some(open);
                self.save()?;
            }
        }
        self.last_request = Some(Instant::now());
        self.run = None;
        Ok(())
    }

    /// Uploads the files that are waiting.
    fn upload_files(&mut self) -> Result<(), Step> {
        let Some(open) = &mut self.open else { return Ok(()) };
        self.files.upload(&self.api, open, &mut self.state.files)?;
        Ok(self.save()?)
    }

    /// Sends the request that waits. One that the service does not answer as it should is repeated unchanged.
    fn send(&mut self) -> Result<(), Step> {
        let (Some((body, is_end)), Some(open)) = (&self.in_flight, &self.open) else { return Ok(()) };
        let is_stopped = self.api.stream(&open.place, body.clone())?;
        self.last_request = Some(Instant::now());
        if body != HEARTBEAT {
            self.last_data = self.last_request;
        }
        if *is_end {
            self.state.num_finished = self.logs.current() + 1;
            self.save()?;
        }
        self.in_flight = None;
        if is_stopped && let Some(stop) = &self.stop {
            stop.request();
        }
        Ok(())
    }

    /// Everything of the session that ended is sent: its last files, and that it has ended. A session that another one continues has no end.
    fn end(&mut self) -> Result<Next, Step> {
        if self.logs.advance()? {
            self.exit = None;
            return Ok(Next::Wait(Instant::now()));
        }
        let (Some(exit), Some(folder)) = (self.exit, self.logs.files()) else { return Ok(Next::UpToDate) };
        if self.state.num_finished > self.logs.current() {
            return Ok(Next::Finished);
        }
        let Some(open) = &self.open else { return Ok(Next::UpToDate) };
        let mut new = vec![super::OUTPUT, "config.yaml", "wandb-summary.json"];
        new.retain(|name| self.files.is_wanted(self.logs.current(), name, &self.state.files));
        if !new.is_empty() {
            let write = |name: &str, text: String| write_atomic(&folder.join(name), text);
            write("wandb-summary.json", Value::Object(open.stream.summary().clone()).to_string())?;
            // JSON is YAML.
            write("config.yaml", serde_json::to_string_pretty(&open.config).unwrap_or_default())?;
            new.retain(|name| folder.join(name).exists());
            new.into_iter().for_each(|name| self.add_file(name));
            if !self.files.is_empty() {
                self.upload_files()?;
            }
        }
        let Some(open) = &mut self.open else { return Ok(Next::UpToDate) };
        self.in_flight = Some((open.stream.take(Some(exit)), true));
        self.send()?;
        Ok(Next::Finished)
    }

    fn save(&self) -> Result<(), TrackError> {
        let text = serde_json::to_string_pretty(&self.state).unwrap_or_default();
        write_atomic(&self.run_dir.join(FOLDER).join(STATE_FILE), text + "\n")
    }
}

/// What interrupts the work.
enum Step {
    Failed(Failure),
    Track(TrackError),
}

impl From<Failure> for Step {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<TrackError> for Step {
    fn from(error: TrackError) -> Self {
        Self::Track(error)
    }
}

/// Whether a run is to be sent while it goes on.
pub(super) fn is_online(settings: &Settings) -> bool {
    settings.mode == Mode::Online
}
