//! `meta/info.json`: rate, features, counts and where the files lie.

use crate::{DataError, FrameSize};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// One column of a dataset, or one camera.
#[derive(Debug, Clone, Deserialize)]
pub struct Feature {
    /// `video`, `image`, `string`, or the element type of a vector (`float32`, `int64`, `bool`, …).
    pub dtype: String,
    /// Sizes: of a camera `[H,W,3]` in pixels, of a vector any number of dimensions.
    pub shape: Vec<usize>,
    /// Names of the dimensions or of their entries, as the recorder wrote them.
    pub names: Option<serde_json::Value>,
    /// What the recorder knew of a video (`video.codec`, `video.g`, …).
    pub info: Option<serde_json::Value>,
}

impl Feature {
    /// Whether it holds pictures, as a video or embedded in parquet.
    #[must_use]
    pub fn is_camera(&self) -> bool {
        matches!(self.dtype.as_str(), "video" | "image")
    }

    /// Whether it holds numbers or truth values.
    #[must_use]
    pub fn is_vector(&self) -> bool {
        !self.is_camera() && self.dtype != "string" && self.dtype != "language"
    }

    /// Number of values per row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.shape.iter().product()
    }

    /// Picture size of a camera. Channels may stand first or last, as `names` says.
    #[must_use]
    pub fn frame_size(&self) -> Option<FrameSize> {
        let &[a, b, c] = self.shape.as_slice() else { return None };
        let first_name = self.names.as_ref().and_then(|names| names.get(0)).and_then(|name| name.as_str());
        let (height, width) =
            if matches!(first_name, Some("channel" | "channels")) || (a == 3 && c != 3) { (b, c) } else { (a, b) };
        self.is_camera().then_some(FrameSize { height, width })
    }
}

/// `meta/info.json`. Keys that are not used here are tolerated.
#[derive(Debug, Clone, Deserialize)]
pub struct Info {
    /// Version of the format, `v3.0`.
    pub codebase_version: String,
    /// Frames per second of every feature.
    pub fps: f64,
    /// Columns and cameras by key.
    pub features: BTreeMap<String, Feature>,
    /// Number of episodes.
    pub total_episodes: u64,
    /// Number of frames.
    pub total_frames: u64,
    /// Number of tasks.
    pub total_tasks: u64,
    /// Pattern of the data files' paths.
    pub data_path: String,
    /// Pattern of the video files' paths; none in a dataset without videos.
    pub video_path: Option<String>,
    /// What was recorded, in the recorder's words.
    pub robot_type: Option<String>,
}

/// The part of `info.json` that every version of the format has.
#[derive(Deserialize)]
struct AnyInfo {
    codebase_version: Option<String>,
}

impl Info {
    /// Reads `meta/info.json` of the dataset at `root`.
    ///
    /// # Errors
    /// When `root` is not a dataset, is one of another version, or the file lacks a key.
    pub fn read(root: &Path) -> Result<Self, DataError> {
        let path = root.join("meta/info.json");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(no_dataset(root)),
            Err(error) => return Err(DataError::io(path)(error)),
        };
        let broken = |error: serde_json::Error| {
            DataError::file(
                &path,
                format!("is not the info.json of a LeRobot dataset: {error}"),
                "fetch the file again",
            )
        };
        let version = serde_json::from_str::<AnyInfo>(&text).map_err(broken)?.codebase_version.unwrap_or_default();
        if !version.starts_with("v3.") {
            return Err(other_version(root, &version));
        }
        let info: Self = serde_json::from_str(&text).map_err(broken)?;
        if !(info.fps.is_finite() && info.fps > 0.0) {
            let what = format!("fps is {}, which is not a frame rate", info.fps);
            return Err(DataError::file(&path, what, "correct `fps`"));
        }
        Ok(info)
    }

    /// Path of a data file, relative to the dataset's folder.
    #[must_use]
    pub fn data_file(&self, chunk: u32, file: u32) -> PathBuf {
        fill(&self.data_path, "", chunk, file)
    }

    /// Path of a video file, relative to the dataset's folder.
    #[must_use]
    pub fn video_file(&self, camera: &str, chunk: u32, file: u32) -> PathBuf {
        fill(self.video_path.as_deref().unwrap_or_default(), camera, chunk, file)
    }
}

/// Fills a path pattern such as `data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet`.
fn fill(pattern: &str, camera: &str, chunk: u32, file: u32) -> PathBuf {
    let mut path = pattern.replace("{video_key}", camera);
    for (name, index) in [("chunk_index", chunk), ("file_index", file)] {
        for (format, text) in [(":03d", format!("{index:03}")), ("", index.to_string())] {
            path = path.replace(&format!("{{{name}{format}}}"), &text);
        }
    }
    path.into()
}

fn no_dataset(root: &Path) -> DataError {
    let what = if root.exists() {
        "is not a LeRobot dataset: there is no meta/info.json in it"
    } else {
        "there is no such folder"
    };
    DataError::Dataset {
        root: root.to_owned(),
        what: what.into(),
        hint: "name the folder that holds meta/, data/ and videos/ (data.sources.<name>.root)".into(),
    }
}

fn other_version(root: &Path, version: &str) -> DataError {
    let (what, hint) = if version.starts_with("v2.") {
        let name = root.file_name().map_or("dataset".into(), |name| name.to_string_lossy());
        (
            format!("is a LeRobot {version} dataset; v3.0 is read"),
            format!(
                "convert it: python -m lerobot.scripts.convert_dataset_v21_to_v30 --repo-id=local/{name} --root={} --push-to-hub=false",
                root.display()
            ),
        )
    } else {
        (
            format!("has the unknown codebase_version {version:?}; v3.0 is read"),
            "write it with LeRobot 0.4 or newer".into(),
        )
    };
    DataError::Dataset { root: root.to_owned(), what, hint }
}

#[cfg(test)]
mod tests {
    use super::fill;

    #[test]
    fn a_path_pattern_pads_its_indices_to_three_digits() {
        let path = fill("videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4", "cam", 2, 1234);
        assert_eq!(path.to_str(), Some("videos/cam/chunk-002/file-1234.mp4"));
    }
}
