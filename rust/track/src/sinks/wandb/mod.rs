//! Weights & Biases, without its client.
//!
//! Every record of a run goes into a log in the run directory first, in the format of the official client's `.wandb` files, so that
//! `wandb sync` and `hlrp runs sync` can upload it. Online, a thread follows that log and sends what is new. The log is the queue: an outage
//! costs no memory and loses nothing, and neither the training nor the writer ever waits for the network.
//!
//! | question | file |
//! |---|---|
//! | Which settings and variables count? Which key? | `settings`, `credentials` |
//! | What does the user hear of it? | `notice` |
//! | Where is a run's log, and what did earlier sessions record? | `session` |
//! | What is recorded, as which records, in which container? | `writer`, `media`, `environment`, `system`, `nodes`, `record`, `log` |
//! | How do records get to the service? | `upload` |
//! | How does a run get there later? | `sync` |
//! | How does the official client record the run of this directory? | `official` |

mod credentials;
mod environment;
mod log;
mod media;
mod nodes;
mod notice;
mod official;
mod record;
mod session;
mod settings;
mod sync;
mod system;
mod upload;
mod writer;

pub use nodes::NodeSampler;
pub use official::Official;
pub use settings::{Server, Settings, Timing};
pub use sync::{Extent, Synced, runs_in, sync, watch};

use super::{NamedHistogram, NamedImage, Sink, SinkSetup};
use crate::{Result, TrackError, console, run::RunStatus, signals::StopSignals};
use serde_json::Value;
use session::Session;
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};
use upload::Uploader;
use writer::{Entry, Writer};

/// Console text, as a stream and as a file.
const OUTPUT: &str = "output.log";
/// How long a run that a signal has ended waits until everything is sent: what ended it may not wait longer.
const INTERRUPTED_TIMEOUT: Duration = Duration::from_secs(10);

/// Records a run for W&B.
struct WandbSink {
    entries: Option<Sender<Entry>>,
    writer: Option<JoinHandle<()>>,
    uploader: Option<Uploader>,
    stop: PageStop,
    finish_timeout: Duration,
}

/// A user's request to stop the run, made on the page of the run.
#[derive(Debug, Clone)]
pub(super) struct PageStop {
    is_requested: Arc<AtomicBool>,
    signals: StopSignals,
}

impl PageStop {
    fn request(&self) {
        if !self.is_requested.swap(true, Ordering::SeqCst) {
            tracing::warn!("a user has stopped this run on its W&B page");
            self.signals.request();
        }
    }
}

/// The sink of the run that `setup` describes, if it is to be recorded.
pub(super) fn open(setup: &SinkSetup<'_>, _options: &Value) -> Result<Option<Box<dyn Sink>>> {
    let Some(settings) = setup.wandb else { return Ok(None) };
    let (session, identity, past) = Session::start(setup.run_dir, settings)?;
    let writer = Writer::start(setup, settings, &session, &identity, past)?;
    let (entries, queue) = channel();
    let thread = thread::Builder::new().name("wandb".to_owned()).spawn(move || writer.work_off(&queue));
    let thread = thread.map_err(TrackError::io("start a thread for", Path::new("W&B")))?;
    if settings.has_console {
        let lines = entries.clone();
        console::listen(move |line| {
            // Nothing is recorded after the end.
            let _ = lines.send(Entry::Line(line.to_owned()));
        });
    }
    let stop = PageStop { is_requested: Arc::default(), signals: setup.stop.cloned().unwrap_or_default() };
    let uploader = match upload::is_online(settings) {
        true => Some(Uploader::start(setup.run_dir, settings, stop.clone())?),
        false => {
            let (log, run_dir) = (session.log.display(), setup.run_dir.display());
            notice::inform(&format!("W&B: offline, in {log}; upload it with: hlrp runs sync {run_dir}"));
            None
        }
    };
    Ok(Some(Box::new(WandbSink {
        entries: Some(entries),
        writer: Some(thread),
        uploader,
        stop,
        finish_timeout: Duration::from_secs_f64(settings.timing.finish_timeout_s),
    })))
}

impl WandbSink {
    /// The writer reports its errors itself; they do not end the run.
    fn put(&self, entry: Entry) {
        if let Some(entries) = &self.entries {
            let _ = entries.send(entry);
        }
    }

    fn end(&mut self, timeout: Duration) {
        console::stop_listening();
        self.entries = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the thread that writes the records for W&B panicked");
        }
        if let Some(uploader) = self.uploader.take() {
            uploader.finish(timeout);
        }
    }
}

impl Sink for WandbSink {
    fn scalars(&mut self, step: u64, scalars: &[(String, f64)]) -> Result<()> {
        self.put(Entry::Scalars(step, scalars.to_vec()));
        Ok(())
    }

    fn images(&mut self, step: u64, images: &[NamedImage]) -> Result<()> {
        self.put(Entry::Images(step, images.to_vec()));
        Ok(())
    }

    fn histograms(&mut self, step: u64, histograms: &[NamedHistogram]) -> Result<()> {
        self.put(Entry::Histograms(step, histograms.to_vec()));
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let (done, wait) = channel();
        self.put(Entry::Flush(done));
        // Nothing is to be waited for where the writer has ended.
        let _ = wait.recv();
        Ok(())
    }

    fn finish(&mut self, outcome: &RunStatus) -> Result<()> {
        let is_stopped = self.stop.is_requested.load(Ordering::SeqCst);
        self.put(Entry::Finish(outcome.clone(), is_stopped));
        let timeout = match outcome {
            RunStatus::Interrupted if !is_stopped => self.finish_timeout.min(INTERRUPTED_TIMEOUT),
            _ => self.finish_timeout,
        };
        self.end(timeout);
        Ok(())
    }
}

impl Drop for WandbSink {
    fn drop(&mut self) {
        if self.writer.is_some() {
            self.end(INTERRUPTED_TIMEOUT);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::{
        log::LogReader,
        record::{Kind, Record},
        session::Identity,
        *,
    };
    use image::RgbImage;
    use prost::Message;
    use serde_json::{Map, json};

    fn settings() -> Settings {
        let options = json!({
            "mode": "offline", "upload_interval_s": 1.0, "heartbeat_interval_s": 1.0, "retry_min_s": 1.0, "retry_max_s": 1.0,
            "finish_timeout_s": 1.0,
        });
        Settings::resolve(&options).unwrap().unwrap()
    }

    /// A session that continues after `step`; it ends without a result.
    fn session(run_dir: &Path, step: u64, record: impl FnOnce(&mut dyn Sink)) {
        let settings = settings();
        let setup = SinkSetup { wandb: Some(&settings), ..SinkSetup::new(run_dir, step, 100) };
        record(open(&setup, &Value::Null).unwrap().unwrap().as_mut());
    }

    fn scalar(sink: &mut dyn Sink, step: u64, name: &str, value: f64) {
        sink.scalars(step, &[(name.to_owned(), value)]).unwrap();
    }

    /// The rows of all sessions, without times.
    fn rows(run_dir: &Path) -> Vec<Value> {
        let mut rows = Vec::new();
        for session in Identity::read(run_dir).unwrap().unwrap().sessions(run_dir) {
            let mut reader = LogReader::open(&session.log).unwrap();
            while let Some(bytes) = reader.next().unwrap() {
                if let Some(Kind::History(row)) = Record::decode(bytes.as_slice()).unwrap().kind {
                    let values = row.item.iter().map(|item| (item.key.clone(), item.value()));
                    let values: Map<_, _> =
                        values.filter(|(key, _)| !["_runtime", "_timestamp"].contains(&key.as_str())).collect();
                    rows.push(values.into());
                }
            }
        }
        rows
    }

    #[test]
    fn the_values_of_a_step_are_one_row_and_a_resume_repeats_none() {
        let dir = tempfile::tempdir().unwrap();
        session(dir.path(), 0, |sink| {
            scalar(sink, 1, "train/loss", 3.0);
            scalar(sink, 2, "train/loss", f64::NAN);
            scalar(sink, 2, "val/loss", 0.5);
            sink.flush().unwrap();
            scalar(sink, 3, "train/loss", 2.0);
        });
        session(dir.path(), 2, |sink| {
            scalar(sink, 3, "train/loss", 2.0);
            scalar(sink, 4, "train/loss", 1.0);
            sink.finish(&RunStatus::Finished).unwrap();
        });
        let expected = [
            json!({ "_step": 1, "train/loss": 3.0 }),
            json!({ "_step": 2, "train/loss": "NaN", "val/loss": 0.5 }),
            json!({ "_step": 3, "train/loss": 2.0 }),
            json!({ "_step": 4, "train/loss": 1.0 }),
        ];
        assert_eq!(rows(dir.path()), expected);
    }

    #[test]
    fn the_validation_that_a_signal_interrupted_is_in_the_next_row() {
        let dir = tempfile::tempdir().unwrap();
        session(dir.path(), 0, |sink| {
            scalar(sink, 1, "train/loss", 3.0);
            sink.flush().unwrap();
            sink.finish(&RunStatus::Interrupted).unwrap();
        });
        session(dir.path(), 1, |sink| {
            scalar(sink, 1, "val/loss", 0.5);
            scalar(sink, 2, "train/loss", 2.0);
        });
        session(dir.path(), 1, |sink| scalar(sink, 1, "val/loss", 0.5));
        let expected =
            [json!({ "_step": 1, "train/loss": 3.0 }), json!({ "_step": 2, "train/loss": 2.0, "val/loss": 0.5 })];
        assert_eq!(rows(dir.path()), expected);
    }

    #[test]
    fn an_image_is_a_file_and_a_long_row_loses_its_longest_value() {
        let dir = tempfile::tempdir().unwrap();
        session(dir.path(), 0, |sink| {
            let image = NamedImage { name: "grid".to_owned(), image: RgbImage::new(3, 2) };
            sink.images(1, &[image]).unwrap();
            let many: Vec<_> = (0..2).map(|index| (format!("{index}{}", "x".repeat(2_100_000)), 1.0)).collect();
            sink.scalars(1, &many).unwrap();
        });
        let row = rows(dir.path()).remove(0);
        let image = &row["validation/grid"];
        assert_eq!((&image["width"], &image["format"]), (&json!(3), &json!("png")));
        let session = Identity::read(dir.path()).unwrap().unwrap().sessions(dir.path()).remove(0);
        let file = session.files().join(image["path"].as_str().unwrap());
        assert_eq!(image::open(file).unwrap().width(), 3);
        assert!(row.to_string().len() < 4_100_000);
    }
}
