//! System metrics of the other machines of a run.
//!
//! The first process of each machine keeps its newest sample in a file of the run directory. The process that records the run puts the
//! new ones into the row with its own, under the names that the official client gives them: `system.cpu/l:<host>`.

use super::{session::FOLDER, system::Sampler};
use crate::{Result, TrackError, fs::write_json, host::hostname, time::unix_time};
use hlrp_config::foreign::read_text;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
    time::Duration,
};

/// Folder of the samples, in that of W&B.
const NODES: &str = "nodes";

/// A sample of one machine.
#[derive(Debug, Serialize, Deserialize)]
struct Sample {
    /// Unix time in seconds, by the clock of the machine.
    time: f64,
    /// By the names of the official client, without `system.`.
    values: BTreeMap<String, f64>,
}

/// Takes samples of this machine in a thread of its own, until it is dropped.
#[derive(Debug)]
pub struct NodeSampler {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl NodeSampler {
    /// Starts sampling for the run in `run_dir`. A sample that cannot be written is a warning.
    ///
    /// # Errors
    /// There can be no more threads.
    pub fn start(run_dir: &Path, interval: Duration) -> Result<Self> {
        let folder = folder(run_dir);
        let (stop, stopped) = channel();
        let work = move || {
            let path = folder.join(format!("{}.json", hostname()));
            let mut sampler = Sampler::new(interval);
            let mut has_failed = false;
            while stopped.recv_timeout(sampler.wait()) == Err(RecvTimeoutError::Timeout) {
                let sample = Sample { time: unix_time(), values: sampler.sample().into_iter().collect() };
                let created = fs::create_dir_all(&folder).map_err(TrackError::io("create", &folder));
                match created.and_then(|()| write_json(&path, &sample)) {
                    Ok(()) => has_failed = false,
                    Err(_) if has_failed => {}
                    Err(error) => {
                        has_failed = true;
                        tracing::warn!("W&B gets no system metrics of this machine: {error}");
                    }
                }
            }
        };
        let thread = thread::Builder::new().name("system".to_owned()).spawn(work);
        let thread = thread.map_err(TrackError::io("start a thread for", Path::new("system metrics")))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for NodeSampler {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that samples the system metrics panicked");
        }
    }
}

/// What the other machines of a run leave.
pub(super) struct OtherNodes {
    folder: PathBuf,
    /// Time of the newest sample of each that has been read.
    times: BTreeMap<PathBuf, f64>,
}

impl OtherNodes {
    /// Those of the run in `run_dir`; what is there already is of an earlier session.
    pub(super) fn new(run_dir: &Path) -> Self {
        let mut nodes = Self { folder: folder(run_dir), times: BTreeMap::new() };
        nodes.new_values();
        nodes
    }

    /// The newest values of each machine that has taken a sample since the last call.
    pub(super) fn new_values(&mut self) -> Vec<(String, f64)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
        let mut found = Vec::new();
        for path in entries.filter(|path| path.extension().is_some_and(|extension| extension == "json")) {
            let Some(sample) = read_text(&path).ok().and_then(|text| serde_json::from_str::<Sample>(&text).ok()) else {
                continue; // it says nothing of this machine until its next sample
            };
            let node = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if self.times.insert(path, sample.time) != Some(sample.time) {
                found.extend(labelled(sample.values, &node));
            }
        }
        found
    }
}

/// Values under the names that they have where a run is on several machines.
pub(super) fn labelled(
    values: impl IntoIterator<Item = (String, f64)>,
    node: &str,
) -> impl Iterator<Item = (String, f64)> {
    values.into_iter().map(move |(key, value)| (format!("{key}/l:{node}"), value))
}

fn folder(run_dir: &Path) -> PathBuf {
    run_dir.join(FOLDER).join(NODES)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;
    use std::time::Instant;

    #[test]
    fn a_sample_of_another_machine_is_read_once_and_that_of_an_earlier_session_never() {
        let dir = tempfile::tempdir().unwrap();
        let folder = folder(dir.path());
        fs::create_dir_all(&folder).unwrap();
        let earlier = Sample { time: 1.0, values: [("cpu".to_owned(), 5.0)].into() };
        write_json(&folder.join("n3.site.json"), &earlier).unwrap();
        fs::write(folder.join("n4.json"), "{").unwrap();
        let mut nodes = OtherNodes::new(dir.path());
        assert_eq!(nodes.new_values(), []);
        write_json(&folder.join("n3.site.json"), &Sample { time: 2.0, ..earlier }).unwrap();
        assert_eq!(nodes.new_values(), [("cpu/l:n3.site".to_owned(), 5.0)]);
        assert_eq!(nodes.new_values(), []);
    }

    #[test]
    fn a_machine_is_sampled_until_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut nodes = OtherNodes::new(dir.path());
        let sampler = NodeSampler::start(dir.path(), Duration::from_millis(20)).unwrap();
        let name = format!("memory_percent/l:{}", hostname());
        let deadline = Instant::now() + Duration::from_secs(60);
        while !nodes.new_values().iter().any(|(key, value)| *key == name && *value > 0.0) {
            assert!(Instant::now() < deadline, "no sample");
            thread::sleep(Duration::from_millis(5));
        }
        drop(sampler);
        nodes.new_values();
        thread::sleep(Duration::from_millis(60));
        assert_eq!(nodes.new_values(), []);
    }
}
