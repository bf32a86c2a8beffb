//! Event files for TensorBoard, in the folder `tensorboard` of a run.
//!
//! Each session of a run has a file of its own. What a resume repeats is recorded once: the files of earlier sessions say which values of
//! which steps there are. A file that cannot be written ends the recording, not the run.

mod event;
mod file;

use super::{NamedHistogram, NamedImage, Sink, SinkSetup};
use crate::{Result, TrackError, host::hostname};
use event::{Event, Kind, What};
use file::EventFile;
use image::ImageFormat;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    io::{self, Cursor},
    path::{Path, PathBuf},
};

/// Folder in the run directory.
const FOLDER: &str = "tensorboard";
/// How the name of an event file begins.
const PREFIX: &str = "events.out.tfevents.";

/// Writes the event file of one session.
struct TensorboardSink {
    path: PathBuf,
    /// None after an error.
    file: Option<EventFile>,
    /// The steps and names that earlier sessions recorded beyond the one that this session continues from.
    known: BTreeSet<(u64, String)>,
}

/// The sink of the run that `setup` describes, if `options` is `true`.
pub(super) fn open(setup: &SinkSetup<'_>, options: &Value) -> Result<Option<Box<dyn Sink>>> {
    if *options != true {
        return Ok(None);
    }
    let folder = setup.run_dir.join(FOLDER);
    fs::create_dir_all(&folder).map_err(TrackError::io("create", &folder))?;
    let known = recorded(&folder, setup.step).map_err(TrackError::io("read", &folder))?;
    let (seconds, pid) = (jiff::Timestamp::now().as_second(), std::process::id());
    let name = |number| folder.join(format!("{PREFIX}{seconds}.{}.{pid}.{number}", hostname()));
    let path = (0..).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(0));
    let file = EventFile::create(&path).map_err(TrackError::io("create", &path))?;
    Ok(Some(Box::new(TensorboardSink { path, file: Some(file), known })))
}

/// The values in the event files of `folder` from `step` on.
fn recorded(folder: &Path, step: u64) -> io::Result<BTreeSet<(u64, String)>> {
    let mut known = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX)) {
            for event in file::read(&path)? {
                let at = u64::try_from(event.step).unwrap_or_default();
                if let (Some(What::Summary(summary)), true) = (event.what, at >= step) {
                    known.extend(summary.value.into_iter().map(|value| (at, value.tag)));
                }
            }
        }
    }
    Ok(known)
}

impl TensorboardSink {
    fn put(&mut self, step: u64, values: Vec<(String, Kind)>) {
        let new = values.into_iter().filter(|(tag, _)| !self.known.contains(&(step, tag.clone())));
        let event = Event::new(step, new.collect());
        if let (Some(file), Some(event)) = (&mut self.file, event) {
            let written = file.append(&event);
            self.check(written);
        }
    }

    fn check(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            let path = self.path.display();
            tracing::error!(
                "cannot write {path}: {error}; TensorBoard gets nothing more of this session, metrics.jsonl has everything"
            );
            self.file = None;
        }
    }
}

impl Sink for TensorboardSink {
    fn scalars(&mut self, step: u64, scalars: &[(String, f64)]) -> Result<()> {
        self.put(step, scalars.iter().map(|(name, value)| (name.clone(), Kind::Scalar(*value as f32))).collect());
        Ok(())
    }

    fn images(&mut self, step: u64, images: &[NamedImage]) -> Result<()> {
        let mut values = Vec::new();
        for NamedImage { name, image } in images {
            let mut png = Vec::new();
            let encoded = image.write_to(&mut Cursor::new(&mut png), ImageFormat::Png);
            encoded.map_err(|error| TrackError::Plot { path: self.path.clone(), reason: error.to_string() })?;
            values.push((format!("validation/{name}"), Kind::Image(event::Image::new(image, png))));
        }
        self.put(step, values);
        Ok(())
    }

    fn histograms(&mut self, step: u64, histograms: &[NamedHistogram]) -> Result<()> {
        let values = histograms.iter().map(|named| (named.name.clone(), Kind::Histogram((&named.histogram).into())));
        self.put(step, values.collect());
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if let Some(file) = &mut self.file {
            let synced = file.sync();
            self.check(synced);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;
    use crate::{
        plot::RgbImage,
        sinks::{Histogram, RunStatus},
    };

    fn session(run_dir: &Path, step: u64) -> Box<dyn Sink> {
        open(&SinkSetup::new(run_dir, step, 10), &true.into()).unwrap().unwrap()
    }

    fn scalar(sink: &mut dyn Sink, step: u64, name: &str, value: f64) {
        sink.scalars(step, &[(name.to_owned(), value)]).unwrap();
    }

    /// The steps and names in all files.
    fn values(run_dir: &Path) -> Vec<(u64, String)> {
        recorded(&run_dir.join(FOLDER), 0).unwrap().into_iter().collect()
    }

    #[test]
    fn what_a_resume_repeats_is_recorded_once() {
        let dir = tempfile::tempdir().unwrap();
        assert!(open(&SinkSetup::new(dir.path(), 0, 10), &false.into()).unwrap().is_none());
        let mut first = session(dir.path(), 0);
        for step in 1..=3 {
            scalar(first.as_mut(), step, "train/loss", 0.5);
        }
        first.finish(&RunStatus::Interrupted).unwrap();
        let mut second = session(dir.path(), 2);
        scalar(second.as_mut(), 2, "val/loss", 0.5); // a signal had interrupted this validation
        for step in 3..=4 {
            scalar(second.as_mut(), step, "train/loss", 0.5);
        }
        second.flush().unwrap();
        let files: Vec<_> = fs::read_dir(dir.path().join(FOLDER)).unwrap().map(|entry| entry.unwrap().path()).collect();
        let num_events: usize = files.iter().map(|path| file::read(path).unwrap().len()).sum();
        assert_eq!((files.len(), num_events), (2, 2 + 3 + 2), "each file begins with its version");
        let expected = [(1, "train/loss"), (2, "train/loss"), (2, "val/loss"), (3, "train/loss"), (4, "train/loss")];
        assert_eq!(values(dir.path()), expected.map(|(step, name)| (step, name.to_owned())));
    }

    #[test]
    fn images_and_histograms_are_values_of_their_step() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = session(dir.path(), 0);
        sink.images(1, &[NamedImage { name: "grid".to_owned(), image: RgbImage::new(3, 2) }]).unwrap();
        let histogram = Histogram::of_counts(&[1, 2]);
        sink.histograms(1, &[NamedHistogram { name: "val/codes".to_owned(), histogram }]).unwrap();
        sink.finish(&RunStatus::Finished).unwrap();
        assert_eq!(values(dir.path()), [(1, "val/codes".to_owned()), (1, "validation/grid".to_owned())]);
    }

    #[test]
    fn the_file_of_a_killed_session_counts_up_to_its_last_whole_event() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = session(dir.path(), 0);
        scalar(sink.as_mut(), 1, "a", 1.0);
        scalar(sink.as_mut(), 2, "a", 1.0);
        sink.flush().unwrap();
        let path = fs::read_dir(dir.path().join(FOLDER)).unwrap().next().unwrap().unwrap().path();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(file.metadata().unwrap().len() - 3).unwrap();
        assert_eq!(values(dir.path()), [(1, "a".to_owned())]);
    }
}
