//! Where metrics and images of a run go: one destination per file.
//!
//! [`Sinks`] is what a training writes to. It puts everything into one queue that a thread of its own works off, so that the training
//! never waits, except before a checkpoint ([`Sinks::flush`]).
//!
//! To add a sink: a file here with its tests and a function `open`, one line in `SINKS`, a field of `SinksConfig` (hlrp-schema,
//! `run.rs`) of its name, and its default in `config/config.yaml`. `open` gets the value of that key and returns none where it switches
//! the sink off. Options other than a flag are an `Option` of a struct, so that trees of older runs, which lack the key, stay valid.

mod console;
mod histogram;
mod jsonl;
mod png;
mod tensorboard;
pub mod wandb;

pub use histogram::{Histogram, MAX_BINS, NamedHistogram};
pub use jsonl::JsonlSink;

use crate::{Result, TrackError, run::RunStatus, signals::StopSignals};
use image::RgbImage;
use serde::Serialize;
use serde_json::Value;
use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
};

/// Every sink: its name in `logging.sinks`, and how it is opened.
const SINKS: &[(&str, Open)] = &[
    ("jsonl", jsonl::open),
    ("console", console::open),
    ("png", png::open),
    ("tensorboard", tensorboard::open),
    ("wandb", wandb::open),
];

type Open = fn(&SinkSetup<'_>, &Value) -> Result<Option<Box<dyn Sink>>>;

/// A destination of metrics and images.
pub trait Sink: Send {
    /// An optimizer step is done.
    fn step(&mut self, _step: u64) {}

    /// Records scalars by full name, measured after `step` optimizer steps.
    ///
    /// # Errors
    /// The destination cannot be written.
    fn scalars(&mut self, _step: u64, _scalars: &[(String, f64)]) -> Result<()> {
        Ok(())
    }

    /// Records the images of the validation after `step` optimizer steps.
    ///
    /// # Errors
    /// As [`Sink::scalars`].
    fn images(&mut self, _step: u64, _images: &[NamedImage]) -> Result<()> {
        Ok(())
    }

    /// Records the histograms of the validation after `step` optimizer steps.
    ///
    /// # Errors
    /// As [`Sink::scalars`].
    fn histograms(&mut self, _step: u64, _histograms: &[NamedHistogram]) -> Result<()> {
        Ok(())
    }

    /// Brings everything so far to the disk; called before each checkpoint is published.
    ///
    /// # Errors
    /// As [`Sink::scalars`].
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    /// The run has ended.
    ///
    /// # Errors
    /// As [`Sink::scalars`].
    fn finish(&mut self, _outcome: &RunStatus) -> Result<()> {
        Ok(())
    }
}

/// An image that a validation returns.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedImage {
    /// Name without an extension, such as `reconstructions`.
    pub name: String,
    /// The pixels.
    pub image: RgbImage,
}

/// What a sink knows of its run.
#[derive(Debug, Clone, Copy)]
pub struct SinkSetup<'a> {
    /// The run directory.
    pub run_dir: &'a Path,
    /// Optimizer steps done (more than 0 when a run resumes).
    pub step: u64,
    /// Optimizer steps of the whole run.
    pub max_steps: u64,
    /// How it is recorded on W&B, if it is.
    pub wandb: Option<&'a wandb::Settings>,
    /// How a user who stops the run on its W&B page reaches the training.
    pub stop: Option<&'a StopSignals>,
}

impl<'a> SinkSetup<'a> {
    /// A run that is not recorded on W&B.
    pub fn new(run_dir: &'a Path, step: u64, max_steps: u64) -> Self {
        Self { run_dir, step, max_steps, wandb: None, stop: None }
    }
}

/// All sinks of a run, behind one queue.
pub struct Sinks {
    queue: Option<Sender<Entry>>,
    thread: Option<JoinHandle<()>>,
    /// The first error of any sink; nothing is recorded after it.
    failure: Arc<Mutex<Option<TrackError>>>,
}

enum Entry {
    Step(u64),
    Scalars(u64, Vec<(String, f64)>),
    Images(u64, Vec<NamedImage>),
    Histograms(u64, Vec<NamedHistogram>),
    /// Answered when everything before it is on the disk.
    Flush(Sender<()>),
    Finish(RunStatus),
}

impl Sinks {
    /// No sink: what a process other than the first has.
    pub fn none() -> Self {
        Self { queue: None, thread: None, failure: Arc::default() }
    }

    /// Opens the sinks that `config` (section `logging.sinks`) switches on.
    ///
    /// # Errors
    /// A sink that cannot be opened.
    pub fn open(setup: &SinkSetup<'_>, config: &impl Serialize) -> Result<Self> {
        let config = serde_json::to_value(config).unwrap_or_default();
        let opened = SINKS.iter().map(|(name, open)| open(setup, config.get(name).unwrap_or(&Value::Null)));
        Self::start(opened.filter_map(Result::transpose).collect::<Result<_>>()?)
    }

    /// Starts the thread that works off the queue of `sinks`.
    fn start(mut sinks: Vec<Box<dyn Sink>>) -> Result<Self> {
        let (queue, entries) = channel();
        let failure = Arc::new(Mutex::new(None));
        let reported = Arc::clone(&failure);
        let work = move || {
            if let Err(error) = work_off(&entries, &mut sinks) {
                *reported.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
        };
        let thread = thread::Builder::new().name("sinks".to_owned()).spawn(work);
        let thread = thread.map_err(TrackError::io("start a thread for", Path::new("metrics and images")))?;
        Ok(Self { queue: Some(queue), thread: Some(thread), failure })
    }

    /// An optimizer step is done.
    ///
    /// # Errors
    /// What any sink failed with since the last call.
    pub fn step(&mut self, step: u64) -> Result<()> {
        self.put(Entry::Step(step))
    }

    /// Records scalars by full name, measured after `step` optimizer steps.
    ///
    /// # Errors
    /// As [`Sinks::step`].
    pub fn scalars(&mut self, step: u64, scalars: Vec<(String, f64)>) -> Result<()> {
        self.put(Entry::Scalars(step, scalars))
    }

    /// Records the images of the validation after `step` optimizer steps.
    ///
    /// # Errors
    /// As [`Sinks::step`].
    pub fn images(&mut self, step: u64, images: Vec<NamedImage>) -> Result<()> {
        self.put(Entry::Images(step, images))
    }

    /// Records the histograms of the validation after `step` optimizer steps.
    ///
    /// # Errors
    /// As [`Sinks::step`].
    pub fn histograms(&mut self, step: u64, histograms: Vec<NamedHistogram>) -> Result<()> {
        self.put(Entry::Histograms(step, histograms))
    }

    /// Waits until everything so far is on the disk: call it before a checkpoint is published, so that the metrics survive what it
    /// survives.
    ///
    /// # Errors
    /// As [`Sinks::step`].
    pub fn flush(&mut self) -> Result<()> {
        let (done, wait) = channel();
        self.put(Entry::Flush(done))?;
        match (&self.queue, wait.recv()) {
            (Some(_), Err(_)) => self.failed(),
            _ => Ok(()),
        }
    }

    /// Ends every sink, when everything is recorded.
    ///
    /// # Errors
    /// As [`Sinks::step`].
    pub fn finish(mut self, outcome: RunStatus) -> Result<()> {
        self.put(Entry::Finish(outcome))?;
        self.end();
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        failure.map_or(Ok(()), Err)
    }

    fn put(&mut self, entry: Entry) -> Result<()> {
        match &self.queue {
            None => Ok(()),
            Some(queue) if queue.send(entry).is_ok() => Ok(()),
            Some(_) => self.failed(),
        }
    }

    /// The error that ended the thread.
    fn failed(&mut self) -> Result<()> {
        self.end();
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        let ended = || std::io::Error::other("the thread that records them has ended");
        Err(failure.unwrap_or_else(|| TrackError::io("record", Path::new("metrics and images"))(ended())))
    }

    fn end(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that records metrics and images panicked");
        }
    }
}

impl Drop for Sinks {
    fn drop(&mut self) {
        self.end();
    }
}

fn work_off(entries: &Receiver<Entry>, sinks: &mut [Box<dyn Sink>]) -> Result<()> {
    for entry in entries {
        for sink in sinks.iter_mut() {
            match &entry {
                Entry::Step(step) => sink.step(*step),
                Entry::Scalars(step, scalars) => sink.scalars(*step, scalars)?,
                Entry::Images(step, images) => sink.images(*step, images)?,
                Entry::Histograms(step, histograms) => sink.histograms(*step, histograms)?,
                Entry::Flush(_) => sink.flush()?,
                Entry::Finish(outcome) => sink.finish(outcome)?,
            }
        }
        if let Entry::Flush(done) = entry {
            // Nobody waits any more when the run has failed meanwhile.
            let _ = done.send(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;
    use crate::metrics::{FILE_NAME, read_metrics, series};
    use serde_json::json;

    #[test]
    fn what_was_put_is_on_the_disk_after_a_flush() {
        let dir = tempfile::tempdir().unwrap();
        let setup = SinkSetup::new(dir.path(), 0, 10);
        let mut sinks = Sinks::open(&setup, &json!({ "console": false, "png": false })).unwrap();
        for step in 1..=3 {
            sinks.step(step).unwrap();
            sinks.scalars(step, vec![("train/loss".to_owned(), step as f64)]).unwrap();
        }
        sinks.flush().unwrap();
        let rows = read_metrics(&dir.path().join(FILE_NAME)).unwrap();
        assert_eq!(series(&rows, "train/loss"), [(1, 1.0), (2, 2.0), (3, 3.0)]);
        sinks.finish(RunStatus::Finished).unwrap();
    }

    #[test]
    fn the_error_of_a_sink_stops_the_run_at_the_next_checkpoint_at_the_latest() {
        let dir = tempfile::tempdir().unwrap();
        let setup = SinkSetup::new(dir.path(), 0, 10);
        let mut sinks = Sinks::open(&setup, &Value::Null).unwrap();
        sinks.scalars(1, vec![("step".to_owned(), 1.0)]).unwrap();
        assert!(matches!(sinks.flush(), Err(TrackError::ReservedMetric { .. })));
        sinks.finish(RunStatus::Finished).unwrap();
    }

    #[test]
    fn without_a_sink_nothing_happens() {
        let mut sinks = Sinks::none();
        sinks.scalars(1, Vec::new()).unwrap();
        sinks.flush().unwrap();
        sinks.finish(RunStatus::Finished).unwrap();
    }
}
