//! LeRobot v3 datasets: a folder with `meta/`, `data/` (parquet) and `videos/`.
//!
//! A dataset is a table with one row per frame, split over many parquet files; an episode is a range of rows.
//! Opening reads the metadata only. Columns are read by row group when a row is asked for, and kept in a [`TableCache`].

mod cache;
mod columns;
mod episodes;
mod frames;
mod info;
mod stats;
mod table;
mod tasks;
mod values;

pub use cache::TableCache;
pub use episodes::{Episode, VideoSpan};
pub use info::{Feature, Info};
pub use stats::{FeatureStats, read_stats};

pub(crate) use table::Table;
pub(crate) use values::append_f64;

use crate::DataError;
use episodes::MANY_TASKS;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// An open dataset.
pub struct Dataset {
    root: PathBuf,
    info: Info,
    tasks: Vec<String>,
    episodes: Vec<Episode>,
    data_files: Vec<DataFile>,
    cache: Arc<TableCache>,
    /// Names this dataset in the cache.
    cache_id: u32,
}

/// A parquet file of `data/`.
struct DataFile {
    path: PathBuf,
    first_row: u64,
}

impl Dataset {
    /// Opens the dataset at `root`; what is read of it is kept in `cache`.
    ///
    /// # Errors
    /// When there is no dataset, one of another version, or its metadata is damaged.
    pub fn open(root: &Path, cache: &Arc<TableCache>) -> Result<Self, DataError> {
        let info = Info::read(root)?;
        let tasks = tasks::read_tasks(root)?;
        let (episodes, files) = episodes::read_episodes(root, &tasks)?;
        let mut data_files: Vec<DataFile> = Vec::with_capacity(files.len());
        for episode in &episodes {
            if episode.data_file as usize == data_files.len() {
                let (chunk, file) = files[data_files.len()];
                let path = root.join(info.data_file(chunk, file));
                data_files.push(DataFile { path, first_row: episode.from_row });
            }
        }
        let cache_id = cache.register();
        Ok(Self { root: root.to_owned(), info, tasks, episodes, data_files, cache: Arc::clone(cache), cache_id })
    }

    /// Folder of the dataset.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What `meta/info.json` says.
    #[must_use]
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Frames per second.
    #[must_use]
    pub fn fps(&self) -> f64 {
        self.info.fps
    }

    /// Number of frames, which is the number of rows.
    #[must_use]
    pub fn num_frames(&self) -> u64 {
        self.episodes.last().map_or(0, |episode| episode.to_row)
    }

    /// Episodes by index.
    #[must_use]
    pub fn episodes(&self) -> &[Episode] {
        &self.episodes
    }

    /// The episode that holds a row.
    ///
    /// # Errors
    /// When the row lies outside the dataset.
    pub fn episode_of(&self, row: u64) -> Result<&Episode, DataError> {
        Ok(&self.episodes[self.episode_slot(row)?])
    }

    /// Position in [`Dataset::episodes`] of the episode that holds a row.
    pub(crate) fn episode_slot(&self, row: u64) -> Result<usize, DataError> {
        let slot = self.episodes.partition_point(|episode| episode.to_row <= row);
        self.episodes.get(slot).filter(|episode| episode.from_row <= row).map(|_| slot).ok_or_else(|| {
            DataError::Dataset {
                root: self.root.clone(),
                what: format!("row {row} belongs to no episode"),
                hint: format!("rows are 0..{}; `hlrp data check` names gaps", self.num_frames()),
            }
        })
    }

    /// Features by key.
    #[must_use]
    pub fn features(&self) -> &BTreeMap<String, Feature> {
        &self.info.features
    }

    /// Keys of the features that hold pictures.
    #[must_use]
    pub fn camera_keys(&self) -> Vec<&str> {
        self.keys_where(Feature::is_camera)
    }

    /// Keys of the features that hold numbers, which [`Dataset::read_vectors`] reads.
    #[must_use]
    pub fn vector_keys(&self) -> Vec<&str> {
        self.keys_where(Feature::is_vector)
    }

    /// The camera of this key.
    ///
    /// # Errors
    /// Names the cameras that there are when it is none of them.
    pub fn camera(&self, key: &str) -> Result<&Feature, DataError> {
        self.feature_where(key, "camera", Feature::is_camera)
    }

    /// Number of values per row of a feature.
    ///
    /// # Errors
    /// Names the features that there are when it is none of them, or holds no numbers.
    pub fn vector_width(&self, key: &str) -> Result<usize, DataError> {
        Ok(self.feature_where(key, "feature that holds numbers", Feature::is_vector)?.width())
    }

    /// Instructions by task index.
    #[must_use]
    pub fn tasks(&self) -> &[String] {
        &self.tasks
    }

    /// The instruction of a row. It may change within an episode.
    ///
    /// # Errors
    /// When the row lies outside the dataset, a file is damaged, or the row names a task that is not there.
    pub fn task_text(&self, row: u64) -> Result<&str, DataError> {
        let task = match self.episode_of(row)?.task {
            MANY_TASKS => {
                let mut index = [0.0];
                self.read_vectors("task_index", &[row], &mut index)?;
                index[0] as usize
            }
            task => task as usize,
        };
        self.tasks.get(task).map(String::as_str).ok_or_else(|| DataError::Dataset {
            root: self.root.clone(),
            what: format!("row {row} has the task_index {task}, but meta/tasks.parquet has {} tasks", self.tasks.len()),
            hint: "fetch meta/tasks.parquet again".into(),
        })
    }

    /// The different instructions of an episode's frames, in the order of their first frame.
    ///
    /// # Errors
    /// As [`Dataset::task_text`].
    pub fn tasks_of(&self, episode: &Episode) -> Result<Vec<&str>, DataError> {
        if episode.task != MANY_TASKS {
            return Ok(vec![self.task_text(episode.from_row)?]);
        }
        let mut tasks = Vec::new();
        for row in episode.from_row..episode.to_row {
            let task = self.task_text(row)?;
            if !tasks.contains(&task) {
                tasks.push(task);
            }
        }
        Ok(tasks)
    }

    /// Where each episode lies in the videos of a camera, in the order of [`Dataset::episodes`].
    ///
    /// # Errors
    /// When a file of `meta/episodes` is missing or damaged.
    pub fn video_spans(&self, camera: &str) -> Result<Vec<VideoSpan>, DataError> {
        episodes::read_video_spans(&self.root, camera, &self.episodes)
    }

    fn keys_where(&self, keep: impl Fn(&Feature) -> bool) -> Vec<&str> {
        self.info.features.iter().filter(|(_, feature)| keep(feature)).map(|(key, _)| key.as_str()).collect()
    }

    fn feature_where(&self, key: &str, kind: &str, keep: impl Fn(&Feature) -> bool) -> Result<&Feature, DataError> {
        self.info.features.get(key).filter(|feature| keep(feature)).ok_or_else(|| {
            let existing = self.keys_where(keep);
            DataError::Feature {
                root: self.root.clone(),
                what: format!("has no {kind} `{key}`"),
                hint: if existing.is_empty() {
                    "there is none".into()
                } else {
                    format!("there are {}", existing.join(", "))
                },
            }
        })
    }
}
