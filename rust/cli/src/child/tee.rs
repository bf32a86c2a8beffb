//! The output of a child, line by line: shown and recorded, both without secrets.

use anyhow::{Context, Result};
use hlrp_config::secret::redact;
use hlrp_track::console;
use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::Path,
    process::Child,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

/// A process that outlives the child may keep its output open; it is waited for no longer than this.
const WAIT_FOR_LAST_LINES: Duration = Duration::from_secs(5);
const CHUNK: usize = 8192;

/// Copies the output of a child to this process and into a file.
pub(crate) struct Tee {
    recorder: Arc<Mutex<Recorder>>,
}

struct Recorder {
    file: File,
    on_line: Box<dyn FnMut(&str) + Send>,
}

impl Tee {
    /// Lines are appended to `path` and shown to `on_line`.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(crate) fn new(path: &Path, on_line: Box<dyn FnMut(&str) + Send>) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { recorder: Arc::new(Mutex::new(Recorder { file, on_line })) })
    }

    pub(super) fn follow(self, child: &mut Child) -> Streams {
        let (done, ended) = mpsc::channel();
        let mut num_streams = 0;
        let mut start = |from: Option<Box<dyn Read + Send>>, to: Box<dyn Write + Send>| {
            let Some(from) = from else { return };
            num_streams += 1;
            let (recorder, done) = (Arc::clone(&self.recorder), done.clone());
            thread::spawn(move || {
                copy(from, to, &recorder);
                // The receiver has gone when nobody waits any more.
                let _ = done.send(());
            });
        };
        start(child.stdout.take().map(|stream| Box::new(stream) as _), Box::new(io::stdout()));
        start(child.stderr.take().map(|stream| Box::new(stream) as _), Box::new(io::stderr()));
        Streams { num_streams, ended }
    }
}

/// The streams of a child that is followed.
pub(super) struct Streams {
    num_streams: usize,
    ended: mpsc::Receiver<()>,
}

impl Streams {
    pub(super) fn finish(self) {
        for _ in 0..self.num_streams {
            if self.ended.recv_timeout(WAIT_FOR_LAST_LINES).is_err() {
                return;
            }
        }
    }
}

fn copy(mut from: Box<dyn Read + Send>, mut to: Box<dyn Write + Send>, recorder: &Mutex<Recorder>) {
    let mut chunk = [0; CHUNK];
    let mut line = Vec::new();
    let mut show = |line: &str, end: &str| {
        // A reader of our output that has gone away does not stop the child.
        let _ = to.write_all(line.as_bytes()).and_then(|()| to.write_all(end.as_bytes())).and_then(|()| to.flush());
    };
    let text = |line: &mut Vec<u8>| redact(&String::from_utf8_lossy(&std::mem::take(line)));
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        for &byte in &chunk[..count] {
            match byte {
                b'\n' => {
                    let line = text(&mut line);
                    show(&line, "\n");
                    record(recorder, &line);
                }
                b'\r' => show(&text(&mut line), "\r"), // a progress bar is redrawn, not recorded
                _ => line.push(byte),
            }
        }
    }
    if !line.is_empty() {
        let line = text(&mut line);
        show(&line, "");
        record(recorder, &line);
    }
}

fn record(recorder: &Mutex<Recorder>, line: &str) {
    let mut recorder = recorder.lock().unwrap_or_else(PoisonError::into_inner);
    (recorder.on_line)(line);
    console::pass_on(line);
    if let Err(error) = recorder.file.write_all(format!("{line}\n").as_bytes()) {
        tracing::debug!("a line of the child process is not recorded: {error}");
    }
}
