//! An open dataset: episodes, columns of the data files by global row, tasks.

use super::{
    cache::{Block, BlockKey, TableCache, Values},
    episodes::{self, Episode, VideoSpan},
    meta::{self, FeatureInfo, Info},
    table::{Table, append_f32, texts},
};
use crate::error::DataError;
use crate::formats::{Description, existing_features, fingerprint::Fingerprint};
use crate::hub::Streams;
use crate::request::{EpisodeSpan, TOLERANCE_S};
use arrow_array::ArrayRef;
use hlrp_schema::hub::Pinned;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

/// An open dataset.
pub struct LeRobotDataset {
    root: PathBuf,
    info: Info,
    episodes: Vec<Episode>,
    data_files: Vec<DataFile>,
    cache: Arc<TableCache>,
    /// Names this dataset in the cache.
    cache_id: u32,
    tolerance_s: f64,
    /// Where its videos are, if they are read over HTTP.
    #[cfg_attr(not(feature = "ffmpeg"), allow(dead_code))] // without FFmpeg nothing reads videos
    remote: Option<(Arc<Streams>, Pinned)>,
    pub(super) description: Description,
}

/// A parquet file of `data/`.
struct DataFile {
    path: PathBuf,
    first_row: u64,
}

/// What the metadata says, and what names the data.
fn describe(root: &Path, info: &Info, tasks: Vec<String>, episodes: &[Episode]) -> Result<Description, DataError> {
    let format = format!("LeRobot {}", info.codebase_version);
    let mut fingerprint = Fingerprint::new(&format);
    fingerprint.add(info.bytes());
    tasks.iter().for_each(|task| fingerprint.add(task.as_bytes()));
    for Episode { index, from_row, to_row, .. } in episodes {
        [index, from_row, to_row].iter().for_each(|number| fingerprint.add(&number.to_le_bytes()));
    }
    // A snapshot of the Hub is named by its commit, whichever of its files are there.
    match Pinned::of_dataset(root) {
        Some(pinned) => fingerprint.add(pinned.to_string().as_bytes()),
        None => {
            for folder in ["meta/episodes", "data", "videos", "images"] {
                fingerprint.add_folder(root, folder)?;
            }
        }
    }
    Ok(Description {
        format,
        robot: info.robot_type.clone(),
        fps: info.fps,
        is_fps_known: true,
        num_episodes: episodes.len() as u64,
        num_frames: episodes.last().map_or(0, |episode| episode.to_row),
        features: info.features.iter().map(|(key, feature)| (key.clone(), feature.describe())).collect(),
        tasks,
        // Only `data check` compares them with the data, and it reads them again to report the error.
        statistics: meta::read_stats(root, info).unwrap_or_else(|error| {
            tracing::warn!("{error}; the dataset is opened without statistics");
            BTreeMap::new()
        }),
        fingerprint: fingerprint.finish(),
    })
}

impl LeRobotDataset {
    /// Opens the dataset at `root`; what is read of it is kept in `cache`.
    ///
    /// # Errors
    /// When there is no dataset, one of another version, or its metadata is damaged.
    pub fn open(root: &Path, cache: &Arc<TableCache>) -> Result<Self, DataError> {
        let info = Info::read(root)?;
        let tasks = meta::read_tasks(root, &info)?;
        let (episodes, files) = episodes::read_episodes(root, &info)?;
        let mut data_files: Vec<DataFile> = Vec::with_capacity(files.len());
        for episode in &episodes {
            if episode.data_file as usize == data_files.len() {
                let (chunk, file) = files[data_files.len()];
                let path = root.join(info.data_file(chunk, file));
                data_files.push(DataFile { path, first_row: episode.from_row });
            }
        }
        let cache_id = cache.register();
        let description = describe(root, &info, tasks, &episodes)?;
        let (root, cache, tolerance_s) = (root.to_owned(), Arc::clone(cache), TOLERANCE_S);
        Ok(Self { root, info, episodes, data_files, cache, cache_id, tolerance_s, remote: None, description })
    }

    /// The same dataset with another tolerance, if one is given: see [`LeRobotDataset::tolerance_s`].
    #[must_use]
    pub fn with_tolerance(self, tolerance_s: Option<f64>) -> Self {
        Self { tolerance_s: tolerance_s.unwrap_or(self.tolerance_s), ..self }
    }

    /// The same dataset, whose videos are read over HTTP where it is a snapshot of the Hub that does not have them.
    #[must_use]
    pub(crate) fn with_streams(self, streams: Option<&Arc<Streams>>) -> Self {
        let remote = streams.and_then(|streams| Some((Arc::clone(streams), Pinned::of_dataset(&self.root)?)));
        Self { remote, ..self }
    }

    /// Where its videos are, if they are read over HTTP.
    #[cfg(feature = "ffmpeg")]
    pub(super) fn remote(&self) -> Option<(&Arc<Streams>, &Pinned)> {
        self.remote.as_ref().map(|(streams, pinned)| (streams, pinned))
    }

    /// How far the recorded time of a row may be from that of its frame, seconds.
    #[must_use]
    pub fn tolerance_s(&self) -> f64 {
        self.tolerance_s
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

    /// The episode of a row.
    ///
    /// # Errors
    /// When the row is outside the dataset.
    pub fn episode_of(&self, row: u64) -> Result<&Episode, DataError> {
        Ok(&self.episodes[self.episode_slot(row)?])
    }

    /// Position in [`LeRobotDataset::episodes`] of the episode of a row.
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
    pub fn features(&self) -> &BTreeMap<String, FeatureInfo> {
        &self.info.features
    }

    /// Keys of the features with images.
    #[must_use]
    pub fn camera_keys(&self) -> Vec<&str> {
        self.keys_where(FeatureInfo::is_camera)
    }

    /// Keys of the features with numbers, which [`LeRobotDataset::read_vectors`] reads.
    #[must_use]
    pub fn vector_keys(&self) -> Vec<&str> {
        self.keys_where(FeatureInfo::is_vector)
    }

    /// The colour camera of this key.
    ///
    /// # Errors
    /// Names the existing cameras when it is none of them.
    pub fn camera(&self, key: &str) -> Result<&FeatureInfo, DataError> {
        if self.info.features.get(key).is_some_and(FeatureInfo::is_depth) {
            return Err(DataError::Feature {
                root: self.root.clone(),
                what: format!("`{key}` is a depth map, not a colour camera"),
                hint: existing_features("colour camera", &self.camera_keys()),
            });
        }
        self.feature_where(key, "colour camera", FeatureInfo::is_camera)
    }

    /// Number of values per row of a feature.
    ///
    /// # Errors
    /// Names the existing features when it is none of them, or has no numbers.
    pub fn vector_width(&self, key: &str) -> Result<usize, DataError> {
        Ok(self.feature_where(key, "numeric feature", FeatureInfo::is_vector)?.shape.iter().product())
    }

    /// Instructions by task index.
    #[must_use]
    pub fn tasks(&self) -> &[String] {
        &self.description.tasks
    }

    /// The instruction of a row: its `task_index` decides. It may change within an episode.
    ///
    /// # Errors
    /// When the row is outside the dataset, a file is damaged, or the row names an unknown task.
    pub fn task_text(&self, row: u64) -> Result<&str, DataError> {
        let mut index = [0.0];
        self.read_vectors("task_index", &[row], &mut index)?;
        self.text_of_task(index[0], row)
    }

    /// The instruction of the `task_index` that `row` has.
    fn text_of_task(&self, index: f32, row: u64) -> Result<&str, DataError> {
        let task = (index >= 0.0).then(|| self.tasks().get(index as usize)).flatten();
        task.map(String::as_str).ok_or_else(|| DataError::Dataset {
            root: self.root.clone(),
            what: format!(
                "row {row} has the task_index {index}, but {} has {} tasks",
                self.info.tasks_path(),
                self.tasks().len()
            ),
            hint: format!("fetch {} again", self.info.tasks_path()),
        })
    }

    /// Different instructions of some rows, in the order of their first row.
    ///
    /// # Errors
    /// As [`LeRobotDataset::task_text`].
    pub fn tasks_of(&self, rows: std::ops::Range<u64>) -> Result<Vec<&str>, DataError> {
        let rows: Vec<u64> = rows.collect();
        let mut indices = self.vectors("task_index", &rows)?.into_iter().zip(rows).collect::<Vec<_>>();
        indices.dedup_by_key(|(index, _)| *index);
        let mut tasks = Vec::new();
        for (index, row) in indices {
            let task = self.text_of_task(index, row)?;
            if !tasks.contains(&task) {
                tasks.push(task);
            }
        }
        Ok(tasks)
    }

    /// Where each episode is in the videos of a camera, in the order of [`LeRobotDataset::episodes`].
    ///
    /// # Errors
    /// When the list of episodes is missing or damaged.
    pub fn video_spans(&self, camera: &str) -> Result<Vec<VideoSpan>, DataError> {
        episodes::read_video_spans(&self.root, &self.info, camera, &self.episodes)
    }

    /// The file of one of [`LeRobotDataset::video_spans`].
    pub(super) fn video_path(&self, camera: &str, span: &VideoSpan) -> PathBuf {
        self.root.join(self.info.video_file(camera, span.file.0, span.file.1))
    }

    /// As [`crate::formats::Dataset::are_here`].
    pub(super) fn are_here(&self, camera: Option<&str>, spans: &[EpisodeSpan]) -> Result<Vec<bool>, DataError> {
        let in_videos = match camera {
            Some(camera) if self.camera(camera)?.dtype == "video" => self.video_spans(camera)?,
            _ => Vec::new(),
        };
        let mut known = HashMap::new();
        let is_here = |span: &EpisodeSpan| {
            let slot = self.episode_slot(span.from_row)?;
            let path = match (camera, in_videos.get(slot)) {
                (Some(camera), Some(video)) => self.video_path(camera, video),
                _ => self.root.join(self.data_file_of(&self.episodes[slot])),
            };
            Ok(*known.entry(path).or_insert_with_key(|path| path.exists()))
        };
        spans.iter().map(is_here).collect()
    }

    /// A digest of the frames of a camera in some episodes: of their metadata, and of path, size, time of the last change, first and last
    /// bytes of the videos and data files that contain them; of a snapshot of the Hub of its commit instead.
    ///
    /// # Errors
    /// There is no such camera, or a file cannot be read.
    pub(crate) fn fingerprint_of_frames(&self, camera: &str, spans: &[EpisodeSpan]) -> Result<String, DataError> {
        let mut fingerprint = Fingerprint::new(&self.description.format);
        fingerprint.add(self.info.bytes());
        let in_videos = if self.camera(camera)?.dtype == "video" { self.video_spans(camera)? } else { Vec::new() };
        let mut files = BTreeSet::new();
        for span in spans {
            let slot = self.episode_slot(span.from_row)?;
            files.insert(self.data_file_of(&self.episodes[slot]).to_owned());
            if let Some(VideoSpan { file: (chunk, file), from_s, to_s }) = in_videos.get(slot) {
                [from_s, to_s].iter().for_each(|time| fingerprint.add(&time.to_le_bytes()));
                files.insert(self.info.video_file(camera, *chunk, *file));
            }
        }
        if let Some(pinned) = Pinned::of_dataset(&self.root) {
            fingerprint.add(pinned.to_string().as_bytes());
            files.iter().for_each(|file| fingerprint.add(file.as_os_str().as_encoded_bytes()));
        } else {
            files.iter().try_for_each(|file| fingerprint.add_dated_file(&self.root, file))?;
        }
        Ok(fingerprint.finish())
    }

    /// Reads a feature at `rows` into `out` (`float32 [rows, width]`, row-major; truth values as 0 and 1).
    /// Rows next to each other cost one look-up.
    ///
    /// # Errors
    /// When there is no such feature, a row is outside the dataset, or a file is missing or damaged.
    ///
    /// # Panics
    /// When the length of `out` is not `rows.len()` times [`LeRobotDataset::vector_width`] values.
    pub fn read_vectors(&self, key: &str, rows: &[u64], out: &mut [f32]) -> Result<(), DataError> {
        let width = self.vector_width(key)?;
        assert_eq!(out.len(), rows.len() * width, "the buffer must have the size [rows, width] of `{key}`");
        let mut block: Option<Arc<Block>> = None;
        for (&row, out) in rows.iter().zip(out.chunks_exact_mut(width.max(1))) {
            let block = match &mut block {
                Some(block) if block.rows.contains(&row) => block,
                block => block.insert(self.block(key, width, row)?),
            };
            match &block.values {
                Values::Each(values) => {
                    let start = (row - block.rows.start) as usize * width;
                    out.copy_from_slice(&values[start..start + width]);
                }
                Values::Constant(value) => out[0] = *value,
                Values::Regular => out[0] = self.regular_timestamp(row)?,
            }
        }
        Ok(())
    }

    /// A feature at `rows`, as [`LeRobotDataset::read_vectors`].
    ///
    /// # Errors
    /// As [`LeRobotDataset::read_vectors`].
    pub fn vectors(&self, key: &str, rows: &[u64]) -> Result<Vec<f32>, DataError> {
        let mut out = vec![0.0; rows.len() * self.vector_width(key)?];
        self.read_vectors(key, rows, &mut out)?;
        Ok(out)
    }

    /// Seconds from the start of the episode to a row's frame, as recorded.
    ///
    /// # Errors
    /// As [`LeRobotDataset::read_vectors`].
    pub fn timestamp(&self, row: u64) -> Result<f32, DataError> {
        let mut out = [0.0];
        self.read_vectors("timestamp", &[row], &mut out)?;
        Ok(out[0])
    }

    /// The text of a feature of dtype `string` at a row.
    ///
    /// # Errors
    /// As [`LeRobotDataset::read_vectors`].
    pub fn text(&self, key: &str, row: u64) -> Result<String, DataError> {
        let (table, local) = self.table_of(row)?;
        let texts = texts(&table.read_row(key, local)?);
        let texts = texts
            .map_err(|what| DataError::file(table.path(), format!("column `{key}` {what}"), "read it as a vector"))?;
        Ok(texts.into_iter().next().unwrap_or_default())
    }

    /// One row of a column as it is in the file, and the file's path.
    pub(crate) fn cell(&self, key: &str, row: u64) -> Result<(Arc<Table>, ArrayRef), DataError> {
        let (table, local) = self.table_of(row)?;
        let cell = table.read_row(key, local)?;
        Ok((table, cell))
    }

    /// The data file with an episode, relative to the dataset's folder.
    #[must_use]
    pub fn data_file_of(&self, episode: &Episode) -> &Path {
        let path = &self.data_files[episode.data_file as usize].path;
        path.strip_prefix(&self.root).unwrap_or(path)
    }

    /// The paths of the data files with their first global row, in order.
    pub(crate) fn data_files(&self) -> impl Iterator<Item = (&Path, u64)> {
        self.data_files.iter().map(|file| (file.path.as_path(), file.first_row))
    }

    /// The file of a row, and the row's index in it.
    fn table_of(&self, row: u64) -> Result<(Arc<Table>, u64), DataError> {
        let file = &self.data_files[self.episode_of(row)?.data_file as usize];
        let table = self.cache.table(&self.root, &file.path)?;
        let local = row - file.first_row;
        if local >= table.num_rows() {
            let what =
                format!("has {} rows, so none for row {row} (its first is row {})", table.num_rows(), file.first_row);
            return Err(DataError::file(
                &file.path,
                what,
                "fetch or record it again; `hlrp data check` lists every such file",
            ));
        }
        Ok((table, local))
    }

    fn block(&self, key: &str, width: usize, row: u64) -> Result<Arc<Block>, DataError> {
        let file = self.episode_of(row)?.data_file;
        let first_row = self.data_files[file as usize].first_row;
        let (table, local) = self.table_of(row)?;
        let group = table.group_of(local);
        let column = self.info.features.keys().position(|name| name == key).unwrap_or(usize::MAX) as u32;
        let key_of_block = BlockKey { dataset: self.cache_id, file, group: group as u32, column };
        self.cache.block(key_of_block, || {
            let local = table.group_rows(group);
            let rows = first_row + local.start..first_row + local.end;
            let values = table.read_values(key, group, width, first_row, append_f32)?;
            let values = match values.first() {
                Some(&first) if width == 1 && values.iter().all(|&value| value == first) => Values::Constant(first),
                _ if key == "timestamp" && self.are_regular(&rows, &values) => Values::Regular,
                _ => Values::Each(values),
            };
            Ok(Block { rows, values })
        })
    }

    /// Whether the timestamps of these rows are all frame number / fps.
    fn are_regular(&self, rows: &std::ops::Range<u64>, values: &[f32]) -> bool {
        rows.clone().zip(values).all(|(row, value)| self.regular_timestamp(row).is_ok_and(|regular| regular == *value))
    }

    fn regular_timestamp(&self, row: u64) -> Result<f32, DataError> {
        Ok(((row - self.episode_of(row)?.from_row) as f64 / self.fps()) as f32)
    }

    fn keys_where(&self, keep: impl Fn(&FeatureInfo) -> bool) -> Vec<&str> {
        self.info.features.iter().filter(|(_, feature)| keep(feature)).map(|(key, _)| key.as_str()).collect()
    }

    fn feature_where(
        &self,
        key: &str,
        kind: &str,
        keep: impl Fn(&FeatureInfo) -> bool,
    ) -> Result<&FeatureInfo, DataError> {
        self.info.features.get(key).filter(|feature| keep(feature)).ok_or_else(|| DataError::Feature {
            root: self.root.clone(),
            what: format!("has no {kind} `{key}`"),
            hint: existing_features(kind, &self.keys_where(keep)),
        })
    }
}
