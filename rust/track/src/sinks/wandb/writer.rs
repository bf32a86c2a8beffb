//! What a run records, as records of its log. One thread writes them; nobody waits for it but a checkpoint.

use super::{
    environment,
    log::LogWriter,
    media,
    nodes::{OtherNodes, labelled},
    notice,
    record::{
        Empty, Exit, Files, FilesItem, Git, Header, History, Item, Kind, OutputRaw, Record, Run, Stats, StatsItem,
        Step, Telemetry, Timestamp, Update, VersionInfo,
    },
    session::{Identity, Past, Session},
    settings::Settings,
    system::Sampler,
};
use crate::{
    Result, TrackError, exit_code,
    run::RunStatus,
    sinks::{NamedHistogram, NamedImage, SinkSetup},
};
use prost::Message;
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io::Write,
    mem,
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender},
    time::{Duration, Instant},
};

/// Longest row in bytes of JSON; the service refuses longer ones.
pub(super) const MAX_LINE: usize = 4_100_000;
/// Quotes, colon and comma of a value in a row.
const PUNCTUATION: usize = 4;
/// Upper bound for the keys that every row has.
const INTERNAL: usize = 200;
/// Exit code of a run that a user stopped on the page of the run, as the official client's.
const EXIT_STOPPED: i32 = 255;

/// What the writer gets.
pub(super) enum Entry {
    Scalars(u64, Vec<(String, f64)>),
    Images(u64, Vec<NamedImage>),
    Histograms(u64, Vec<NamedHistogram>),
    /// A console line, without its line end.
    Line(String),
    /// Answered when everything before it is on the disk.
    Flush(Sender<()>),
    /// The run has ended; whether because a user asked for it on its page.
    Finish(RunStatus, bool),
}

/// The values of one step, until the next step begins.
struct Row {
    step: u64,
    timestamp: f64,
    runtime: f64,
    values: Map<String, Value>,
}

/// Writes the log of one session.
pub(super) struct Writer {
    log: LogWriter,
    path: PathBuf,
    files: PathBuf,
    console: Option<File>,
    num: i64,
    row: Option<Row>,
    /// The last row that a session has written; what comes for earlier steps repeats it.
    last_step: Option<u64>,
    /// The keys of that row, as long as the step that this session continues from is the same.
    last_keys: Option<BTreeSet<String>>,
    /// Values of that step which it lacks, because a signal interrupted the validation. Rows cannot be changed: the next one has them.
    late: Map<String, Value>,
    started: Instant,
    runtime_before: f64,
    sampler: Option<Sampler>,
    /// Name of this machine, and what the others leave, where the run is on several.
    nodes: Option<(String, OtherNodes)>,
    too_long: BTreeSet<String>,
    /// Nothing is written after an error.
    has_failed: bool,
}

impl Writer {
    /// Starts the log of `session` with what is known of the run.
    ///
    /// # Errors
    /// The log cannot be written.
    pub(super) fn start(
        setup: &SinkSetup<'_>,
        settings: &Settings,
        session: &Session,
        identity: &Identity,
        past: Past,
    ) -> Result<Self> {
        let log = LogWriter::create(&session.log).map_err(TrackError::io("create", &session.log))?;
        let output = session.files().join(super::OUTPUT);
        let console = match settings.has_console {
            true => Some(
                OpenOptions::new().create(true).append(true).open(&output).map_err(TrackError::io("open", &output))?,
            ),
            false => None,
        };
        let is_same_step = past.last_step == Some(setup.step);
        let mut writer = Self {
            log,
            path: session.log.clone(),
            files: session.files(),
            console,
            num: 0,
            row: None,
            last_step: past.last_step,
            last_keys: is_same_step.then_some(past.last_keys),
            late: Map::new(),
            started: Instant::now(),
            runtime_before: past.runtime,
            sampler: settings.stats_interval().map(Sampler::new),
            nodes: settings.node.clone().map(|name| (name, OtherNodes::new(setup.run_dir))),
            too_long: BTreeSet::new(),
            has_failed: false,
        };
        let metadata = environment::metadata(settings, &identity.writer);
        let path = writer.files.join(environment::FILE_NAME);
        let text = serde_json::to_string_pretty(&metadata).unwrap_or_default();
        std::fs::write(&path, text).map_err(TrackError::io("write", &path))?;
        let run = run_record(setup, settings, identity, &metadata, past.runtime)?;
        let version =
            Some(VersionInfo { producer: environment::VERSION.to_owned(), min_consumer: "0.10.0".to_owned() });
        let mut kinds = vec![Kind::Header(Header { version_info: version }), Kind::Run(run)];
        kinds.push(files_record(environment::FILE_NAME, FilesItem::WANDB));
        if !past.summary.is_empty() {
            let update = past.summary.iter().map(|(key, value)| Item::new(key, value)).collect();
            kinds.push(Kind::Summary(Update { update }));
        }
        writer.write(kinds).map_err(TrackError::io("write", &session.log))?;
        writer.log.sync().map_err(TrackError::io("flush", &session.log))?;
        Ok(writer)
    }

    /// Works off `entries`. A queue that closes without [`Entry::Finish`] is a run that failed.
    pub(super) fn work_off(mut self, entries: &Receiver<Entry>) {
        loop {
            let wait = self.sampler.as_ref().map_or(Duration::from_secs(3600), Sampler::wait);
            match entries.recv_timeout(wait) {
                Ok(Entry::Finish(outcome, is_stopped)) => return self.finish(&outcome, is_stopped),
                Ok(entry) => self.take(entry),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    let reason = "the program ended without recording a result".to_owned();
                    return self.finish(&RunStatus::Failed { reason, exit_code: None }, false);
                }
            }
            if let Some(sampler) = self.sampler.as_mut().filter(|sampler| sampler.wait().is_zero()) {
                let mut values = sampler.sample();
                if let Some((name, others)) = &mut self.nodes {
                    values = labelled(values, name).chain(others.new_values()).collect();
                }
                let item =
                    values.into_iter().map(|(key, value)| StatsItem { key, value_json: number(value).to_string() });
                let stats = Stats { timestamp: Some(Timestamp::now()), item: item.collect() };
                self.put(vec![Kind::Stats(stats)]);
            }
        }
    }

    fn take(&mut self, entry: Entry) {
        match entry {
            Entry::Scalars(step, scalars) => {
                let values = scalars.into_iter().map(|(name, value)| (name, number(value)));
                self.add(step, values.collect());
            }
            Entry::Images(step, images) => self.images(step, &images),
            Entry::Histograms(step, histograms) => {
                let values = histograms.iter().map(|named| (named.name.clone(), media::histogram(&named.histogram)));
                self.add(step, values.collect());
            }
            Entry::Line(line) => self.line(&line),
            Entry::Flush(done) => {
                self.end_row();
                if let Err(error) = self.log.sync() {
                    self.fail(&error);
                }
                // Nobody waits any more when the run has failed meanwhile.
                let _ = done.send(());
            }
            Entry::Finish(..) => {}
        }
    }

    /// Values of `step`: those of one step become one row.
    fn add(&mut self, step: u64, mut values: Map<String, Value>) {
        if self.last_step.is_some_and(|last| step <= last) {
            if let Some(known) = self.last_keys.as_ref().filter(|_| self.last_step == Some(step)) {
                values.retain(|key, _| !known.contains(key));
                self.late.extend(values);
            }
            return; // a resumed run repeats it
        }
        if self.row.as_ref().is_some_and(|row| row.step != step) {
            self.end_row();
        }
        let now = Timestamp::now().seconds();
        let runtime = self.runtime();
        let late = &mut self.late;
        let new = || Row { step, timestamp: now, runtime, values: mem::take(late) };
        self.row.get_or_insert_with(new).values.extend(values);
    }

    fn images(&mut self, step: u64, images: &[NamedImage]) {
        let is_repeated = self.last_step.is_some_and(|last| step < last || (step == last && self.last_keys.is_none()));
        if is_repeated || self.has_failed {
            return;
        }
        let mut values = Map::new();
        let mut kinds = Vec::new();
        for image in images {
            match media::save(&self.files, step, image) {
                Ok((path, value)) => {
                    kinds.push(files_record(&path, FilesItem::MEDIA));
                    values.insert(media::key(image), value);
                }
                Err(error) => notice::warn(&format!("an image is not recorded for W&B: {error}")),
            }
        }
        self.put(kinds);
        self.add(step, values);
    }

    fn line(&mut self, line: &str) {
        if let Some(file) = &mut self.console {
            // The log has the line as well.
            let _ = writeln!(file, "{line}");
            let line = format!("{line}\n");
            let record = OutputRaw { output_type: 1, timestamp: Some(Timestamp::now()), line };
            self.put(vec![Kind::OutputRaw(record)]);
        }
    }

    /// Writes the row, and the summary that it changes.
    fn end_row(&mut self) {
        let Some(Row { step, timestamp, runtime, mut values }) = self.row.take() else { return };
        self.shorten(step, &mut values);
        let internal = [("_step", json!(step)), ("_runtime", json!(runtime)), ("_timestamp", json!(timestamp))];
        let mut item: Vec<Item> = internal.iter().map(|(key, value)| Item::new(key, value)).collect();
        item.extend(values.iter().map(|(key, value)| Item::new(key, value)));
        let mut update = item.clone();
        update.push(Item {
            key: String::new(),
            nested_key: vec!["_wandb".to_owned(), "runtime".to_owned()],
            value_json: (runtime as u64).to_string(),
        });
        let row = History { item, step: Some(Step { num: step as i64 }) };
        self.last_step = Some(step);
        self.last_keys = None;
        self.put(vec![Kind::History(row), Kind::Summary(Update { update })]);
    }

    /// Leaves out the longest values of a row that is too long for the service.
    fn shorten(&mut self, step: u64, values: &mut Map<String, Value>) {
        let mut sizes: Vec<(usize, String)> = values
            .iter()
            .map(|(key, value)| (key.len() + value.to_string().len() + PUNCTUATION, key.clone()))
            .collect();
        sizes.sort();
        while sizes.iter().map(|(size, _)| size).sum::<usize>() > MAX_LINE - INTERNAL {
            let Some((_, key)) = sizes.pop() else { return };
            values.remove(&key);
            let shown: String = key.chars().take(100).collect();
            if self.too_long.insert(key) {
                notice::warn(&format!("{shown} is too long for W&B at step {step}; metrics.jsonl has it"));
            }
        }
    }

    fn finish(mut self, outcome: &RunStatus, is_stopped: bool) {
        self.end_row();
        if let (Some(last), false) = (self.last_step, self.late.is_empty()) {
            self.add(last + 1, Map::new());
            self.end_row();
        }
        let exit_code = match outcome {
            RunStatus::Interrupted if is_stopped => EXIT_STOPPED,
            other => other.exit_code().unwrap_or(exit_code::ERROR).into(),
        };
        let mut kinds = Vec::new();
        if *outcome == RunStatus::Interrupted && !is_stopped {
            kinds.push(Kind::Preempting(Empty {}));
        }
        let exit = Exit { exit_code, runtime: self.runtime() as i32 };
        kinds.extend([Kind::Exit(exit), Kind::Final(Empty {}), Kind::Footer(Empty {})]);
        self.put(kinds);
        if let Err(error) = self.log.sync() {
            self.fail(&error);
        }
    }

    fn runtime(&self) -> f64 {
        self.runtime_before + self.started.elapsed().as_secs_f64()
    }

    /// Writes records; an error ends the recording, not the run.
    fn put(&mut self, kinds: Vec<Kind>) {
        if !self.has_failed
            && !kinds.is_empty()
            && let Err(error) = self.write(kinds)
        {
            self.fail(&error);
        }
    }

    fn fail(&mut self, error: &std::io::Error) {
        if !mem::replace(&mut self.has_failed, true) {
            let path = self.path.display();
            tracing::error!(
                "cannot write {path}: {error}; W&B gets nothing more of this session, metrics.jsonl has everything"
            );
        }
    }

    fn write(&mut self, kinds: Vec<Kind>) -> std::io::Result<()> {
        let records: Vec<Vec<u8>> = kinds
            .into_iter()
            .map(|kind| {
                self.num += 1;
                Record { num: self.num, kind: Some(kind) }.encode_to_vec()
            })
            .collect();
        self.log.append(records.iter().map(Vec::as_slice))
    }
}

/// A number of JSON, or the text that W&B reads as the number which JSON lacks.
fn number(value: f64) -> Value {
    match value {
        _ if value.is_finite() => json!(value),
        _ if value.is_nan() => json!("NaN"),
        _ if value > 0.0 => json!("Infinity"),
        _ => json!("-Infinity"),
    }
}

fn files_record(path: &str, kind: i32) -> Kind {
    Kind::Files(Files { files: vec![FilesItem { path: path.to_owned(), policy: 0, kind }] })
}

fn run_record(
    setup: &SinkSetup<'_>,
    settings: &Settings,
    identity: &Identity,
    metadata: &Value,
    runtime_before: f64,
) -> Result<Run> {
    let config = environment::config(setup.run_dir, identity, metadata)?;
    let update = config.iter().map(|(key, value)| Item::new(key, value)).collect();
    let mut start = Timestamp::now();
    start.seconds -= runtime_before as i64;
    let experiment = config.get("experiment").and_then(|section| section.get("name")).and_then(Value::as_str);
    let name = settings.name.clone().or_else(|| experiment.map(Settings::fit_name));
    let of_git = |name: &str| metadata["git"][name].as_str().unwrap_or_default().to_owned();
    Ok(Run {
        run_id: identity.id.clone(),
        entity: settings.entity.clone().unwrap_or_default(),
        project: settings.project.clone(),
        config: Some(Update { update }),
        run_group: settings.group.clone().unwrap_or_default(),
        job_type: settings.job_type.clone().unwrap_or_default(),
        display_name: name.unwrap_or_default(),
        notes: settings.notes.clone().unwrap_or_default(),
        tags: settings.tags.clone(),
        host: metadata["host"].as_str().unwrap_or_default().to_owned(),
        starting_step: setup.step as i64,
        start_time: Some(start),
        telemetry: Some(Telemetry {
            cli_version: environment::VERSION.to_owned(),
            platform: environment::PLATFORM.to_owned(),
        }),
        git: metadata.get("git").map(|_| Git { remote_url: of_git("remote"), commit: of_git("commit") }),
    })
}
