//! Formats of datasets: one trait, one variant per file or folder.
//!
//! A dataset is a table with one row per frame; an episode is a range of rows. Whoever trains, caches, checks or shows a
//! dataset knows it as a [`Dataset`]: random access to rows and frames by global row, and a [`Description`]. Only a
//! variant reads a dataset's files. To add one: a module here that implements [`Dataset`] and has a `FORMAT`, and one line
//! in `FORMATS`. The folder itself shows which format it has.

mod columns;
mod fingerprint;
pub mod lerobot;
pub mod rlds;
mod scenes;

pub use columns::{ColumnValues, NewColumn};
pub use lerobot::TableCache;

use crate::check::findings::{Depth, Findings};
use crate::error::DataError;
use crate::frames::{FrameSize, FrameStore};
use crate::hub::Streams;
use crate::request::EpisodeSpan;
use hlrp_config::Problem;
use hlrp_schema::{RldsConfig, ScenesConfig};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// All formats, in the order in which a folder is tried.
const FORMATS: &[Format] = &[lerobot::FORMAT, rlds::FORMAT, scenes::FORMAT];

/// How a folder is opened.
type Open = fn(&Path, &OpenOptions) -> Result<Arc<dyn Dataset>, DataError>;

/// How a dataset is opened.
#[derive(Clone)]
pub struct OpenOptions {
    /// Cache of what is read of its tables.
    pub tables: Arc<TableCache>,
    /// How far the recorded time of a row may be from that of its frame, seconds; the format's own default if none.
    pub tolerance_s: Option<f64>,
    /// What the source says of an RLDS dataset; all of its episodes, at one step per second, if none.
    pub rlds: Option<RldsConfig>,
    /// What the source says of a dataset of scenes; all of them, at one frame per second, if none.
    pub scenes: Option<ScenesConfig>,
    /// Folder for what a format has to index before it can be read at random. Without it, such a dataset is only described, and has no
    /// episodes; folders of scenes are read again.
    pub index_dir: Option<PathBuf>,
    /// What reads videos over HTTP that a snapshot of the Hub does not have; without it they are missing.
    pub streams: Option<Arc<Streams>>,
}

impl OpenOptions {
    /// A cache of about `table_bytes` at most, the format's own tolerance, and no index.
    #[must_use]
    pub fn new(table_bytes: usize) -> Self {
        Self {
            tables: TableCache::new(table_bytes),
            tolerance_s: None,
            rlds: None,
            scenes: None,
            index_dir: None,
            streams: None,
        }
    }
}

/// One way in which datasets are stored.
struct Format {
    /// What its folders contain, for the error of a folder that has no known format.
    contents: &'static str,
    /// Whether a folder has this format, by a look at the names in it. A broken dataset of the format counts.
    is_format_of: fn(&Path) -> bool,
    /// Opens a folder of this format.
    open: Open,
}

/// An open dataset. Called by many threads at once.
pub trait Dataset: Send + Sync {
    /// What the dataset says about itself; read when it was opened.
    fn describe(&self) -> &Description;

    /// All episodes, ordered by their rows.
    fn episodes(&self) -> Vec<EpisodeSpan>;

    /// Indices of the episodes, of those in use, that the dataset itself holds out for validation; none where it has no opinion. `reach` is
    /// [`crate::request::Request::anchor_reach`].
    ///
    /// # Errors
    /// The split of the source holds out all of them, or none.
    fn held_out(&self, _in_use: &[EpisodeSpan], _reach: (i64, i64)) -> Result<Option<Vec<u64>>, DataError> {
        Ok(None)
    }

    /// Reads a vector at the global rows `rows` into `out_TN` (`float32 [T,N]`, N the feature's number of values).
    ///
    /// # Errors
    /// There is no such vector, or a file cannot be read: names the file and the column.
    fn read_vectors(&self, key: &str, rows: &[u64], out_TN: &mut [f32]) -> Result<(), DataError>;

    /// Instruction at a global row.
    ///
    /// # Errors
    /// Names the file that cannot be read or the row without a task.
    fn task(&self, row: u64) -> Result<String, DataError>;

    /// The frames of a camera, delivered in `size`, by default as recorded.
    ///
    /// # Errors
    /// There is no such camera, its metadata is damaged, or this build cannot decode it.
    fn frame_store(self: Arc<Self>, camera: &str, size: Option<FrameSize>) -> Result<Box<dyn FrameStore>, DataError>;

    /// Different instructions of an episode's frames, in the order of their first frame.
    ///
    /// # Errors
    /// As [`Dataset::task`].
    fn tasks_of(&self, span: &EpisodeSpan) -> Result<Vec<String>, DataError> {
        let mut tasks = Vec::new();
        for row in span.from_row..span.to_row {
            let task = self.task(row)?;
            if !tasks.contains(&task) {
                tasks.push(task);
            }
        }
        Ok(tasks)
    }

    /// Of each episode, whether the file with its rows is in the folder, or with `camera` that with the camera's frames: part of a dataset may
    /// have been downloaded.
    ///
    /// # Errors
    /// There is no such camera, or metadata cannot be read.
    fn are_here(&self, _camera: Option<&str>, spans: &[EpisodeSpan]) -> Result<Vec<bool>, DataError> {
        Ok(vec![true; spans.len()])
    }

    /// How a camera's frames are stored, in words: container, codec, and where the files differ from the metadata.
    ///
    /// # Errors
    /// A file cannot be read.
    fn storage_of(&self, _camera: &str) -> Result<String, DataError> {
        Ok("images".to_owned())
    }

    /// A digest of the frames of a camera in the episodes `spans`, which changes when a file that contains them is replaced. A frame
    /// cache is named after it.
    ///
    /// # Errors
    /// There is no such camera, or a file cannot be read.
    fn fingerprint_of_frames(&self, _camera: &str, _spans: &[EpisodeSpan]) -> Result<String, DataError> {
        Ok(self.describe().fingerprint.clone())
    }

    /// Whether [`Dataset::extend`] can write the dataset with further columns `keys`.
    ///
    /// # Errors
    /// The format is not written, or the dataset has one of them.
    fn check_extension(&self, _keys: &[&str]) -> Result<(), DataError> {
        let message = format!("datasets of the format {} are read, not written", self.describe().format);
        Err(Problem::new("DATASET", message, "give a LeRobot v3 dataset").into())
    }

    /// Writes the dataset with `columns` into the folder `out`, which is empty; recordings are linked, not copied. Nothing of this dataset is
    /// changed.
    ///
    /// # Errors
    /// As [`Dataset::check_extension`], or a file cannot be read or written.
    ///
    /// # Panics
    /// When a column has not as many numbers as the dataset has rows.
    fn extend(&self, _out: &Path, columns: &[NewColumn]) -> Result<(), DataError> {
        self.check_extension(&columns.iter().map(|column| column.key.as_str()).collect::<Vec<_>>())
    }

    /// Looks for damage; [`crate::check::check_all`] checks what every format has.
    fn check(self: Arc<Self>, depth: Depth, findings: &mut Findings);
}

/// What a dataset says about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// Format and its version, such as `LeRobot v3.0`.
    pub format: String,
    /// What was recorded, in the recorder's words.
    pub robot: Option<String>,
    /// Frames per second of every feature.
    pub fps: f64,
    /// Whether the dataset or its source says so; otherwise `fps` is 1, and a second is a frame.
    pub is_fps_known: bool,
    /// Number of episodes.
    pub num_episodes: u64,
    /// Number of frames, which is the number of rows.
    pub num_frames: u64,
    /// Columns and cameras by key.
    pub features: BTreeMap<String, Feature>,
    /// Instructions.
    pub tasks: Vec<String>,
    /// Statistics of features over the whole dataset, as recorded; a feature may have none.
    pub statistics: BTreeMap<String, FeatureStats>,
    /// Names the data: 32 hexadecimal digits that stay when the folder moves and change with what is in it.
    pub fingerprint: String,
}

impl Description {
    /// Keys of the features of one kind.
    pub fn keys(&self, kind: FeatureKind) -> impl Iterator<Item = &str> {
        self.features.iter().filter(move |(_, feature)| feature.kind == kind).map(|(key, _)| key.as_str())
    }

    /// The feature of this key, if it is of this kind.
    #[must_use]
    pub fn feature(&self, key: &str, kind: FeatureKind) -> Option<&Feature> {
        self.features.get(key).filter(|feature| feature.kind == kind)
    }
}

/// What a feature consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeatureKind {
    /// One colour image per row.
    Camera,
    /// One depth map per row, which is not read.
    Depth,
    /// Numbers or truth values, which [`Dataset::read_vectors`] reads.
    Vector,
    /// One text per row.
    Text,
}

/// One column of a dataset, or one camera.
#[derive(Debug, Clone, PartialEq)]
pub struct Feature {
    /// What it consists of.
    pub kind: FeatureKind,
    /// Of a camera `[H,W,3]` in pixels, of a vector any number of dimensions.
    pub shape: Vec<usize>,
    /// Type of its elements, in the format's words.
    pub dtype: String,
    /// Names of its values, where the recorder gave any.
    pub names: Vec<String>,
}

impl Feature {
    /// Number of values per row.
    #[must_use]
    pub fn num_values(&self) -> usize {
        self.shape.iter().product()
    }

    /// Image size of a camera; none where the recorded one is not a size.
    #[must_use]
    pub fn frame_size(&self) -> Option<FrameSize> {
        match (self.kind, self.shape.as_slice()) {
            (FeatureKind::Camera | FeatureKind::Depth, &[height, width, _]) if height > 0 && width > 0 => {
                Some(FrameSize { height, width })
            }
            _ => None,
        }
    }
}

/// Statistics of one feature, one value per entry (of a camera: one per channel, in 0..1).
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureStats {
    /// By name: `min`, `max`, `mean`, `std`, `count`, and quantiles such as `q01`; nested lists are flattened.
    pub values: BTreeMap<String, Vec<f64>>,
}

/// The hint of an error about a missing feature: the existing ones.
pub(crate) fn existing_features(what: &str, keys: &[&str]) -> String {
    match keys {
        [] => format!("the dataset has no {what}; choose another dataset"),
        keys => format!("there are {}", keys.join(", ")),
    }
}

/// Opens the dataset in the folder `root`, of whatever format.
///
/// # Errors
/// There is no such folder, it has no known format, or its metadata is damaged.
pub fn open(root: &Path, options: &OpenOptions) -> Result<Arc<dyn Dataset>, DataError> {
    (find(root)?.open)(root, options)
}

/// Whether a folder has an RLDS dataset, which needs the section `rlds` of its source.
#[must_use]
pub fn is_rlds(root: &Path) -> bool {
    has_format(root, &rlds::FORMAT)
}

/// Whether a folder has scenes, which need the section `scenes` of their source.
pub(crate) fn is_scenes(root: &Path) -> bool {
    has_format(root, &scenes::FORMAT)
}

fn has_format(root: &Path, format: &Format) -> bool {
    find(root).is_ok_and(|found| found.contents == format.contents)
}

/// The format of a folder.
///
/// # Errors
/// There is no such folder, or it has no known format.
pub(crate) fn check_format(root: &Path) -> Result<(), DataError> {
    find(root).map(drop)
}

fn find(root: &Path) -> Result<&'static Format, DataError> {
    FORMATS.iter().find(|format| (format.is_format_of)(root)).ok_or_else(|| {
        let contents: Vec<_> = FORMATS.iter().map(|format| format.contents).collect();
        let what = if root.exists() { "has the format of no dataset" } else { "there is no such folder" };
        DataError::Dataset {
            root: root.to_owned(),
            what: what.to_owned(),
            hint: format!("give the folder of a dataset (data.sources.<name>.root): {}", contents.join("; or ")),
        }
    })
}
