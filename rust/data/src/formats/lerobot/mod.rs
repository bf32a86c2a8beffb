//! LeRobot v3 and v2.1 datasets: a folder with `meta/`, `data/` (parquet) and `videos/`.
//!
//! The table is split over many parquet files. Opening reads the metadata only. Columns are read by row group when a row is
//! asked for, and kept in a [`TableCache`]. Frames are in videos, or embedded in the data files.

mod cache;
mod check;
mod check_listed;
mod dataset;
mod episodes;
mod extend;
mod files;
mod images;
mod meta;
mod needed;
mod table;
mod v21;
#[cfg(feature = "ffmpeg")]
mod video;

pub use cache::TableCache;
pub(super) use cache::{Block, BlockKey, Values};
pub use dataset::LeRobotDataset;
pub use episodes::{Episode, VideoSpan};
pub use meta::{FeatureInfo, Info};
pub(crate) use needed::{INFO, META, Needed, Wanted};

use crate::check::findings::{Depth, Findings};
use crate::error::DataError;
use crate::formats::{Dataset, Description, Format, NewColumn};
use crate::frames::{FrameSize, FrameStore};
use crate::images::ImageStore;
use crate::request::EpisodeSpan;
use images::EmbeddedImages;
use std::path::Path;
use std::sync::Arc;

pub(super) const FORMAT: Format = Format {
    contents: "for LeRobot v3 and v2.1 the one with meta/, data/ and videos/",
    is_format_of: |root| root.join("meta/info.json").exists(),
    open: |root, options| {
        let dataset = LeRobotDataset::open(root, &options.tables)?;
        let dataset = dataset.with_tolerance(options.tolerance_s).with_streams(options.streams.as_ref());
        Ok(Arc::new(dataset))
    },
};

impl Dataset for LeRobotDataset {
    fn describe(&self) -> &Description {
        &self.description
    }

    fn episodes(&self) -> Vec<EpisodeSpan> {
        let span = |e: &Episode| EpisodeSpan { episode: e.index, from_row: e.from_row, to_row: e.to_row };
        self.episodes().iter().map(span).collect()
    }

    fn read_vectors(&self, key: &str, rows: &[u64], out_TN: &mut [f32]) -> Result<(), DataError> {
        self.read_vectors(key, rows, out_TN)
    }

    fn task(&self, row: u64) -> Result<String, DataError> {
        self.task_text(row).map(str::to_owned)
    }

    fn tasks_of(&self, span: &EpisodeSpan) -> Result<Vec<String>, DataError> {
        Ok(self.tasks_of(span.from_row..span.to_row)?.into_iter().map(str::to_owned).collect())
    }

    fn frame_store(self: Arc<Self>, camera: &str, size: Option<FrameSize>) -> Result<Box<dyn FrameStore>, DataError> {
        let feature = self.camera(camera)?;
        let native = feature.frame_size().filter(|size| size.height > 0 && size.width > 0);
        let size = size.or(native).ok_or_else(|| DataError::Feature {
            root: self.root().to_owned(),
            what: format!("camera `{camera}` has the shape {:?}, which is not an image size", feature.shape),
            hint: "correct its `shape` in meta/info.json to [height, width, 3]".into(),
        })?;
        if feature.dtype == "image" {
            let images = EmbeddedImages { dataset: Arc::clone(&self), camera: camera.to_owned() };
            return Ok(Box::new(ImageStore::new(Box::new(images), size)));
        }
        decoded(&self, camera, size)
    }

    fn are_here(&self, camera: Option<&str>, spans: &[EpisodeSpan]) -> Result<Vec<bool>, DataError> {
        self.are_here(camera, spans)
    }

    fn storage_of(&self, camera: &str) -> Result<String, DataError> {
        if self.camera(camera)?.dtype == "image" {
            return Ok("images embedded in parquet".to_owned());
        }
        storage_of_video(self, camera)
    }

    fn fingerprint_of_frames(&self, camera: &str, spans: &[EpisodeSpan]) -> Result<String, DataError> {
        self.fingerprint_of_frames(camera, spans)
    }

    fn check_extension(&self, keys: &[&str]) -> Result<(), DataError> {
        extend::check(self, keys)
    }

    fn extend(&self, out: &Path, columns: &[NewColumn]) -> Result<(), DataError> {
        extend::extend(self, out, columns)
    }

    fn check(self: Arc<Self>, depth: Depth, findings: &mut Findings) {
        check::check(&self, depth, findings);
    }
}

#[cfg(feature = "ffmpeg")]
fn decoded(dataset: &Arc<LeRobotDataset>, camera: &str, size: FrameSize) -> Result<Box<dyn FrameStore>, DataError> {
    Ok(Box::new(dataset.video_store(camera, size)?))
}

#[cfg(not(feature = "ffmpeg"))]
fn decoded(dataset: &Arc<LeRobotDataset>, camera: &str, _size: FrameSize) -> Result<Box<dyn FrameStore>, DataError> {
    Err(DataError::Feature {
        root: dataset.root().to_owned(),
        what: format!("camera `{camera}` is a video, and this program was built without FFmpeg"),
        hint: "read it from a frame cache (data.cache.enabled=true), or build with the feature `ffmpeg`".into(),
    })
}

#[cfg(feature = "ffmpeg")]
fn storage_of_video(dataset: &LeRobotDataset, camera: &str) -> Result<String, DataError> {
    let mut files: Vec<_> = dataset.video_spans(camera)?.iter().map(|span| dataset.video_path(camera, span)).collect();
    files.dedup();
    if files.is_empty() {
        return Ok("no video".into());
    }
    let Some(path) = files.iter().find(|path| path.exists()) else {
        return Ok(format!("video, {}, none of them here", num_files(files.len())));
    };
    let info = {
        files::inspect(dataset.root(), path)?;
        crate::video::probe(path)?
    };
    let group = match info.group_size {
        1 => "every frame a keyframe".to_owned(),
        size => format!("a keyframe every {size}"),
    };
    let mut parts = vec![format!("{} video, {group}, {}", info.codec, num_files(files.len()))];
    parts.extend(check::disagreements(dataset, camera, &info));
    Ok(parts.join("; "))
}

#[cfg(feature = "ffmpeg")]
fn num_files(count: usize) -> String {
    format!("{count} file{}", if count == 1 { "" } else { "s" })
}

#[cfg(not(feature = "ffmpeg"))]
fn storage_of_video(dataset: &LeRobotDataset, camera: &str) -> Result<String, DataError> {
    let codec = dataset.camera(camera)?.recorded("video.codec").and_then(|codec| codec.as_str());
    Ok(format!("{} video (this program was built without FFmpeg)", codec.unwrap_or("unknown")))
}
