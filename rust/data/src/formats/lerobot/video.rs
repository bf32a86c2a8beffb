//! Where the frames of a camera are in the dataset's videos.

use super::{dataset::LeRobotDataset, files};
use crate::error::DataError;
use crate::frames::FrameSize;
use crate::hub::RemoteVideo;
use crate::read_at::ReadAt;
use crate::video::{VideoStore, VideoTable};
use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The videos of one camera.
struct CameraVideos {
    dataset: Arc<LeRobotDataset>,
    /// Of each episode: which of `files`, and the time of its first frame there.
    spans: Vec<(u32, f64)>,
    files: Vec<PathBuf>,
}

impl LeRobotDataset {
    /// The frames of a camera whose images are in videos, delivered in `size`.
    ///
    /// # Errors
    /// When the metadata of the videos is missing or damaged.
    pub fn video_store(self: &Arc<Self>, camera: &str, size: FrameSize) -> Result<VideoStore, DataError> {
        let mut files: Vec<PathBuf> = Vec::new();
        let mut last = None;
        let mut spans = Vec::with_capacity(self.episodes().len());
        for span in self.video_spans(camera)? {
            if last != Some(span.file) {
                files.push(self.video_path(camera, &span));
                last = Some(span.file);
            }
            spans.push((files.len() as u32 - 1, span.from_s));
        }
        let table = CameraVideos { dataset: Arc::clone(self), spans, files };
        Ok(VideoStore::new(Box::new(table), size, self.tolerance_s()))
    }
}

impl VideoTable for CameraVideos {
    fn locate(&self, row: u64) -> Result<(u32, f64), DataError> {
        let (file, from_s) = self.spans[self.dataset.episode_slot(row)?];
        Ok((file, from_s + f64::from(self.dataset.timestamp(row)?)))
    }

    fn path(&self, file: u32) -> &Path {
        &self.files[file as usize]
    }

    fn open(&self, file: u32) -> Result<Box<dyn ReadAt>, DataError> {
        let (root, path) = (self.dataset.root(), self.path(file));
        if let Some((streams, pinned)) = self.dataset.remote().filter(|_| !path.exists()) {
            let name = path.strip_prefix(root).unwrap_or(path).display().to_string();
            return Ok(Box::new(RemoteVideo::open(streams, pinned, &name)?));
        }
        files::inspect(root, path)?;
        Ok(Box::new(File::open(path).map_err(DataError::io(path))?))
    }

    fn episode(&self, row: u64) -> u64 {
        self.dataset.episode_of(row).map_or(0, |episode| episode.index)
    }
}
