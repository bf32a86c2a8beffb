//! Which episodes of a dataset are in its folder: part of a dataset may have been downloaded.

use crate::error::DataError;
use crate::formats::{Dataset, FeatureKind};
use crate::request::EpisodeSpan;
use std::collections::{BTreeMap, HashSet};

/// The episodes whose files are in a dataset's folder.
pub(super) struct EpisodesHere {
    episodes: Vec<EpisodeSpan>,
    pub(super) with_rows: Vec<EpisodeSpan>,
    /// Those with rows that a camera shows, by camera.
    pub(super) with_images: BTreeMap<String, HashSet<EpisodeSpan>>,
}

impl EpisodesHere {
    /// # Errors
    /// Metadata cannot be read.
    pub(super) fn of(dataset: &dyn Dataset) -> Result<Self, DataError> {
        let episodes = dataset.episodes();
        let chosen = |among: &[EpisodeSpan], are_here: Vec<bool>| {
            among.iter().zip(are_here).filter(|(_, is_here)| *is_here).map(|(span, _)| *span).collect::<Vec<_>>()
        };
        let with_rows = chosen(&episodes, dataset.are_here(None, &episodes)?);
        let mut with_images = BTreeMap::new();
        for camera in dataset.describe().keys(FeatureKind::Camera) {
            let shown = chosen(&with_rows, dataset.are_here(Some(camera), &with_rows)?);
            with_images.insert(camera.to_owned(), shown.into_iter().collect());
        }
        Ok(Self { episodes, with_rows, with_images })
    }

    /// How much is here, in words, where it is not everything.
    pub(super) fn part(&self) -> Option<String> {
        let num_episodes = self.episodes.len();
        let cameras = self.with_images.iter().map(|(camera, spans)| (camera.as_str(), spans.len()));
        let counts: Vec<_> = [("rows", self.with_rows.len())].into_iter().chain(cameras).collect();
        let is_whole = counts.iter().all(|(_, count)| *count == num_episodes);
        let parts = counts.iter().map(|(what, count)| format!("{what} of {count}"));
        (!is_whole).then(|| format!("a part of the {num_episodes} episodes: {}", parts.collect::<Vec<_>>().join(", ")))
    }
}
