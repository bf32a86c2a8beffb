//! Which files of a dataset some cameras and episodes need.

use super::{
    episodes::{read_episodes, read_video_spans},
    meta::{FeatureInfo, Info},
};
use crate::error::DataError;
use hlrp_config::Problem;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// The folder of a dataset with its metadata.
pub(crate) const META: &str = "meta";
/// The file without which a folder is no dataset.
pub(crate) const INFO: &str = "meta/info.json";

/// The cameras and episodes that are wanted, and what to call each in an error.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted<'a> {
    /// Feature keys; all of them if none.
    pub(crate) cameras: Option<&'a [String]>,
    /// Indices; all of them if none.
    pub(crate) episodes: Option<&'a [u64]>,
    /// Indices that are not wanted all the same.
    pub(crate) excluded: Option<&'a [u64]>,
    /// Names the setting with the cameras.
    pub(crate) cameras_key: &'a str,
    /// Names the setting with the episodes.
    pub(crate) episodes_key: &'a str,
}

/// Files, relative to the dataset's folder, besides its metadata.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Needed {
    /// Tables; they contain the images of embedded cameras.
    pub(crate) tables: BTreeSet<PathBuf>,
    /// Videos.
    pub(crate) videos: BTreeSet<PathBuf>,
}

impl Needed {
    /// What the dataset in `root`, of which the metadata is enough, needs for `wanted`.
    ///
    /// # Errors
    /// The metadata is damaged; [`Problem`] with a camera or an episode that the dataset does not have.
    pub(crate) fn of(root: &Path, wanted: &Wanted<'_>) -> Result<Self, DataError> {
        let info = Info::read(root)?;
        let (episodes, files) = read_episodes(root, &info)?;
        for episode in wanted.episodes.unwrap_or_default() {
            if episodes.binary_search_by_key(episode, |known| known.index).is_err() {
                let hint = format!("the dataset has {} episodes, counted from 0", episodes.len());
                let message = format!("there is no episode {episode}");
                return Err(Problem::new(wanted.episodes_key, message, hint).into());
            }
        }
        let is_wanted = |index: u64| {
            wanted.episodes.is_none_or(|listed| listed.contains(&index))
                && !wanted.excluded.is_some_and(|listed| listed.contains(&index))
        };
        let slots: Vec<usize> = (0..episodes.len()).filter(|&slot| is_wanted(episodes[slot].index)).collect();
        let table = |slot: &usize| {
            let (chunk, file) = files[episodes[*slot].data_file as usize];
            info.data_file(chunk, file)
        };
        let mut needed = Self { tables: slots.iter().map(table).collect(), videos: BTreeSet::new() };
        for camera in cameras(&info, wanted)? {
            let spans = read_video_spans(root, &info, camera, &episodes)?;
            let video = |slot: &usize| info.video_file(camera, spans[*slot].file.0, spans[*slot].file.1);
            needed.videos.extend(slots.iter().map(video));
        }
        Ok(needed)
    }
}

/// The wanted cameras whose images are in videos.
fn cameras<'a>(info: &'a Info, wanted: &Wanted<'_>) -> Result<Vec<&'a str>, Problem> {
    let colour = || info.features.iter().filter(|(_, feature)| feature.is_camera());
    for key in wanted.cameras.unwrap_or_default() {
        if !info.features.get(key).is_some_and(FeatureInfo::is_camera) {
            let known: Vec<&str> = colour().map(|(key, _)| key.as_str()).collect();
            let hint = crate::formats::existing_features("colour camera", &known);
            return Err(Problem::new(wanted.cameras_key, format!("the dataset has no camera `{key}`"), hint));
        }
    }
    let is_wanted = |key: &String| wanted.cameras.is_none_or(|cameras| cameras.contains(key));
    let videos = colour().filter(|(key, feature)| feature.dtype == "video" && is_wanted(key));
    Ok(videos.map(|(key, _)| key.as_str()).collect())
}
