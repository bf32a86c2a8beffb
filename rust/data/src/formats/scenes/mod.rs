//! Folders of scenes: a scene is an episode, and each of its frames a JPEG or PNG file. There are no states and no actions.
//!
//! In the YouTube form a table `scenes.csv` lists the scenes of a video, at the root or in each of its folders. The other form is a raw tree
//! of Bridge v2, whose paths say where the trajectories are. Scenes are numbered over the whole folder, whichever of them are in use.

mod bridge;
mod dataset;
mod index;
mod names;
mod open;
mod split;
mod table;

use crate::check::{Depth, Findings, check_all};
use crate::error::DataError;
use crate::formats::{Dataset, Description, Format};
use crate::frames::{FrameSize, FrameStore};
use crate::images::ImageStore;
use crate::request::EpisodeSpan;
use dataset::{Frames, SceneDataset};
use std::sync::Arc;

pub(super) const FORMAT: Format = Format {
    contents: "for scenes the one with scenes.csv, or with folders that have one, or a raw tree of Bridge v2",
    is_format_of: |root| open::has_table(root) || bridge::is_tree(root),
    open: |root, options| Ok(Arc::new(open::open(root, options.scenes.as_ref(), options.index_dir.as_deref())?)),
};

impl Dataset for SceneDataset {
    fn describe(&self) -> &Description {
        &self.description
    }

    fn episodes(&self) -> Vec<EpisodeSpan> {
        self.spans()
    }

    fn held_out(&self, spans: &[EpisodeSpan], reach: (i64, i64)) -> Result<Option<Vec<u64>>, DataError> {
        self.held_out(spans, reach)
    }

    fn read_vectors(&self, key: &str, _rows: &[u64], _out_TN: &mut [f32]) -> Result<(), DataError> {
        Err(self.has_no("numeric feature", key))
    }

    fn task(&self, row: u64) -> Result<String, DataError> {
        self.task(row)
    }

    fn tasks_of(&self, span: &EpisodeSpan) -> Result<Vec<String>, DataError> {
        Ok(vec![self.task(span.from_row)?])
    }

    fn frame_store(self: Arc<Self>, camera: &str, size: Option<FrameSize>) -> Result<Box<dyn FrameStore>, DataError> {
        let native = self.description.features.get(camera).and_then(|feature| feature.frame_size());
        let (Some(native), true) = (native, camera == dataset::CAMERA) else {
            return Err(self.has_no("colour camera", camera));
        };
        Ok(Box::new(ImageStore::new(Box::new(Frames(self)), size.unwrap_or(native))))
    }

    fn storage_of(&self, camera: &str) -> Result<String, DataError> {
        Ok(format!("{} files", self.description.features[camera].dtype))
    }

    fn check(self: Arc<Self>, depth: Depth, findings: &mut Findings) {
        self.check_scenes(findings);
        check_all(&self, depth, findings);
    }
}
