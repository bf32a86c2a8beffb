//! RLDS datasets as TensorFlow Datasets stores them (Open X-Embodiment): a folder `<name>/<version>/` with `dataset_info.json`,
//! `features.json` and TFRecord shards. A record is an episode; each feature of its `steps` is a list with one item per step.
//!
//! A row is a step. Keys are the paths below `steps` (`observation/image`, `action/world_vector`); features of the episode are read at each
//! of its steps. Episodes are numbered over all splits, in the order of `dataset_info.json`.

mod dataset;
mod index;
mod info;
mod records;
mod split;
mod wire;

pub use dataset::RldsDataset;

use crate::check::{Depth, Findings, check_all};
use crate::error::DataError;
use crate::formats::{Dataset, Description, FeatureKind, Format, existing_features};
use crate::frames::{FrameSize, FrameStore};
use crate::images::ImageStore;
use crate::request::EpisodeSpan;
use dataset::Camera;
use std::sync::Arc;

pub(super) const FORMAT: Format = Format {
    contents: "for RLDS the one with dataset_info.json, features.json and the shards (<name>/<version>)",
    is_format_of: |root| root.join(info::INFO).exists() || root.join(info::FEATURES).exists(),
    open: |root, options| Ok(Arc::new(RldsDataset::open(root, options)?)),
};

impl Dataset for RldsDataset {
    fn describe(&self) -> &Description {
        &self.description
    }

    fn episodes(&self) -> Vec<EpisodeSpan> {
        self.spans()
    }

    fn held_out(&self, _in_use: &[EpisodeSpan], _reach: (i64, i64)) -> Result<Option<Vec<u64>>, DataError> {
        Ok(self.held_out())
    }

    fn read_vectors(&self, key: &str, rows: &[u64], out_TN: &mut [f32]) -> Result<(), DataError> {
        self.vectors(key, rows, out_TN)
    }

    fn task(&self, row: u64) -> Result<String, DataError> {
        self.task(row)
    }

    fn tasks_of(&self, span: &EpisodeSpan) -> Result<Vec<String>, DataError> {
        self.tasks_of(span)
    }

    fn frame_store(self: Arc<Self>, camera: &str, size: Option<FrameSize>) -> Result<Box<dyn FrameStore>, DataError> {
        let keys = self.camera_keys();
        let native = self.description.feature(camera, FeatureKind::Camera).and_then(|feature| feature.frame_size());
        let (Some(position), Some(size)) = (keys.iter().position(|key| key == camera), size.or(native)) else {
            return Err(DataError::Feature {
                root: self.root().to_owned(),
                what: format!("has no colour camera `{camera}`"),
                hint: existing_features("colour camera", &keys.iter().map(String::as_str).collect::<Vec<_>>()),
            });
        };
        Ok(Box::new(ImageStore::new(Box::new(Camera { dataset: self, position, key: camera.to_owned() }), size)))
    }

    fn storage_of(&self, camera: &str) -> Result<String, DataError> {
        let encoding = &self.description.features[camera].dtype;
        let num_shards = self.num_shards();
        Ok(format!("{encoding} images, {num_shards} shard{}", if num_shards == 1 { "" } else { "s" }))
    }

    fn check(self: Arc<Self>, depth: Depth, findings: &mut Findings) {
        self.check_shards(findings);
        check_all(&self, depth, findings);
    }
}
