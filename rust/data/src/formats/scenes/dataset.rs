//! An open dataset of scenes: frames by global row.

use super::names::{frames_in, gap};
use super::split;
use crate::check::Findings;
use crate::error::DataError;
use crate::formats::{Description, existing_features};
use crate::images::{DAMAGED, EncodedImage, EncodedImages};
use crate::request::EpisodeSpan;
use crate::{lock::lock, lru::ByteLru};
use hlrp_config::foreign;
use hlrp_schema::SceneSplitConfig;
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

/// Feature key of the one camera.
pub(super) const CAMERA: &str = "image";
/// Memory for names of frames, bytes.
pub(super) const NAMES_BYTES: usize = 32 << 20;

/// Largest file of a frame.
const MAX_FRAME_BYTES: u64 = 64 << 20;
/// What a name takes in memory besides its own bytes.
const NAME_OVERHEAD: usize = 32;

/// An open dataset.
pub(super) struct SceneDataset {
    /// Canonical path.
    pub(super) root: PathBuf,
    /// How the names of frames begin.
    pub(super) prefix: &'static str,
    /// Those in use, in the order of their rows.
    pub(super) scenes: Vec<Scene>,
    /// Folders without a frame.
    pub(super) empty: Vec<PathBuf>,
    pub(super) split: Option<SceneSplitConfig>,
    /// Names of frames by the position of their scene.
    pub(super) names: Mutex<ByteLru<usize, Arc<[OsString]>>>,
    pub(super) description: Description,
}

/// A scene in use.
pub(super) struct Scene {
    pub(super) span: EpisodeSpan,
    /// Folder of its frames, below the root.
    pub(super) frames: PathBuf,
    pub(super) task: Option<Box<str>>,
    /// Number of frames that the table says it has.
    pub(super) num_listed: Option<u64>,
    /// Whether the conditions of the split hold.
    pub(super) is_chosen: bool,
}

impl SceneDataset {
    pub(super) fn spans(&self) -> Vec<EpisodeSpan> {
        self.scenes.iter().map(|scene| scene.span).collect()
    }

    /// As [`crate::Dataset::held_out`].
    pub(super) fn held_out(
        &self,
        spans: &[EpisodeSpan],
        (back, on): (i64, i64),
    ) -> Result<Option<Vec<u64>>, DataError> {
        let Some(config) = &self.split else { return Ok(None) };
        let is_chosen = |at: usize| self.scene_of(spans[at].from_row).is_ok_and(|(_, scene)| scene.is_chosen);
        split::held_out(config, spans, is_chosen, on.abs_diff(back)).map(Some).map_err(|what| DataError::Dataset {
            root: self.root.clone(),
            what,
            hint: "change data.sources.<name>.scenes.split, or the scenes in use".into(),
        })
    }

    pub(super) fn task(&self, row: u64) -> Result<String, DataError> {
        Ok(self.scene_of(row)?.1.task.as_deref().unwrap_or_default().to_owned())
    }

    /// The error about a feature that is not there.
    pub(super) fn has_no(&self, what: &str, key: &str) -> DataError {
        let keys = if what == "colour camera" { &[CAMERA][..] } else { &[] };
        DataError::Feature {
            root: self.root.clone(),
            what: format!("has no {what} `{key}`"),
            hint: existing_features(what, keys),
        }
    }

    /// Compares the number of frames with the table's, and looks for missing ones.
    pub(super) fn check_scenes(&self, findings: &mut Findings) {
        for folder in &self.empty {
            findings.add(&self.root.join(folder), "has no frame");
        }
        for (at, scene) in self.scenes.iter().enumerate() {
            let folder = self.root.join(&scene.frames);
            let num_frames = scene.span.num_frames();
            if let Some(num_listed) = scene.num_listed.filter(|&listed| listed != num_frames) {
                findings.add(&folder, &format!("has {num_frames} frames, but the table says {num_listed}"));
            }
            match self.names(at) {
                Ok(names) => {
                    if let Some([before, after]) = gap(&names) {
                        let [before, after] = [before, after].map(|name| name.to_string_lossy());
                        findings.add(&folder, &format!("frames are missing between {before} and {after}"));
                    }
                }
                Err(error) => findings.error(&error),
            }
        }
        findings.verified(format!("numbers of frames of {} scenes", self.scenes.len()));
    }

    /// The scene of a row, and its position.
    fn scene_of(&self, row: u64) -> Result<(usize, &Scene), DataError> {
        let at = self.scenes.partition_point(|scene| scene.span.to_row <= row);
        self.scenes.get(at).map(|scene| (at, scene)).ok_or_else(|| DataError::Dataset {
            root: self.root.clone(),
            what: format!("row {row} belongs to no scene"),
            hint: format!("rows are 0..{}", self.description.num_frames),
        })
    }

    /// Names of the frames of the scene at a position.
    fn names(&self, at: usize) -> Result<Arc<[OsString]>, DataError> {
        if let Some(names) = lock(&self.names).get(&at) {
            return Ok(Arc::clone(names));
        }
        let scene = &self.scenes[at];
        let folder = self.root.join(&scene.frames);
        let names: Arc<[OsString]> = frames_in(&folder, self.prefix)?.into();
        if names.len() as u64 != scene.span.num_frames() {
            let what = format!("has {} frames, not the {} from before", names.len(), scene.span.num_frames());
            return Err(DataError::file(&folder, what, "start again: its files have changed since it was opened"));
        }
        let bytes = names.iter().map(|name| name.len() + NAME_OVERHEAD).sum();
        lock(&self.names).put(at, Arc::clone(&names), bytes);
        Ok(names)
    }
}

/// The frames of a dataset.
pub(super) struct Frames(pub(super) Arc<SceneDataset>);

impl EncodedImages for Frames {
    fn image(&self, row: u64) -> Result<EncodedImage, DataError> {
        let (at, scene) = self.0.scene_of(row)?;
        let name = &self.0.names(at)?[(row - scene.span.from_row) as usize];
        let path = self.0.root.join(&scene.frames).join(name);
        let bytes = read_frame(&path).map_err(|what| self.failure(&path, row, what, DAMAGED))?;
        Ok(EncodedImage { path, bytes })
    }

    fn failure(&self, path: &Path, row: u64, what: String, hint: &str) -> DataError {
        let (episode, first) =
            self.0.scene_of(row).map_or((0, row), |(_, scene)| (scene.span.episode, scene.span.from_row));
        let wanted_s = (row - first) as f64 / self.0.description.fps;
        DataError::Frame { path: path.to_owned(), episode, wanted_s, what, hint: hint.to_owned() }
    }
}

/// Refuses a frame that is not a file, and a link that leads out of its folder.
///
/// # Errors
/// Why it cannot be read.
pub(super) fn inspect_frame(path: &Path) -> Result<(), String> {
    foreign::inspect(path, MAX_FRAME_BYTES).map(drop).map_err(|error| error.to_string())
}

/// The content of a frame that [`inspect_frame`] accepts.
///
/// # Errors
/// Why it cannot be read.
pub(super) fn read_frame(path: &Path) -> Result<Vec<u8>, String> {
    inspect_frame(path)?;
    fs::read(path).map_err(|error| error.to_string())
}
