//! What a checkpoint says about itself.

use super::{CONFIG, MANIFEST, MODEL, OPTIMIZER, STATE, whole_neighbour};
use crate::{DecayGroup, Result, TrainError};
use hlrp_schema::TaskDescription;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

/// `manifest.json` of a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`Manifest::FORMAT`].
    pub format: String,
    /// [`Manifest::FORMAT_VERSION`].
    pub format_version: u64,
    /// Version of the program that wrote it.
    pub hlrp: String,
    /// Version of the libtorch that computed it.
    pub libtorch: String,
    /// Optimizer steps done.
    pub step: u64,
    /// Score of exactly these weights; absent when no validation ran at this step.
    pub score: Option<Score>,
    /// Device that computed it, such as `cpu` or `cuda:0 (NVIDIA H100 80GB HBM3)`.
    pub device: String,
    /// CPU threads of the tensor library; the same number gives the same bits.
    pub num_threads: usize,
    /// `bf16-mixed` or `32-true`.
    pub precision: String,
    /// Which parameters decay, and which do not.
    pub optimizer_groups: [DecayGroup; 2],
    /// What the model is: [`crate::Task::description`].
    pub task: TaskDescription,
    /// Every other file by name.
    pub files: BTreeMap<String, FileRecord>,
}

/// One value of the metric that scores checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// Name of the metric.
    pub metric: String,
    /// Its value.
    pub value: f64,
}

/// Size and digest of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Bytes.
    pub size: u64,
    /// SHA-256 in hexadecimal digits.
    pub sha256: String,
}

impl Manifest {
    /// Name of the format.
    pub const FORMAT: &str = "hlrp-checkpoint";
    /// Version of the format that this crate writes and reads.
    pub const FORMAT_VERSION: u64 = 1;

    /// Reads the manifest of the checkpoint `dir`.
    ///
    /// # Errors
    /// A file that is missing, is no manifest, or has another format version.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(MANIFEST);
        let damaged = |reason: String| TrainError::Damaged { path: path.clone(), reason, hint: whole_neighbour(dir) };
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(damaged("the file is missing".to_owned()));
            }
            read => read.map_err(TrainError::io("read", &path))?,
        };
        let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        match value.get("format_version").and_then(serde_json::Value::as_u64) {
            Some(Self::FORMAT_VERSION) => {}
            Some(found) => return Err(TrainError::FormatVersion { path, found, wanted: Self::FORMAT_VERSION }),
            None => return Err(damaged("it names no format_version".to_owned())),
        }
        serde_json::from_value(value).map_err(|error| damaged(error.to_string()))
    }

    /// Reads the manifest of the checkpoint `dir` and compares every file with it.
    ///
    /// # Errors
    /// As [`Manifest::read`]; [`TrainError::Damaged`] for the first file that is missing or differs, with a whole checkpoint beside
    /// it as the way out.
    pub fn verify(dir: &Path) -> Result<Self> {
        let manifest = Self::read(dir)?;
        for required in [MODEL, OPTIMIZER, STATE, CONFIG] {
            if !manifest.files.contains_key(required) {
                let (path, reason) = (dir.join(MANIFEST), format!("it does not list {required}"));
                return Err(TrainError::Damaged { path, reason, hint: whole_neighbour(dir) });
            }
        }
        for (name, record) in &manifest.files {
            if let Some(reason) = difference(&dir.join(name), record)? {
                return Err(TrainError::Damaged { path: dir.join(name), reason, hint: whole_neighbour(dir) });
            }
        }
        Ok(manifest)
    }

    /// Whether the checkpoint `dir` is whole.
    pub(super) fn is_whole(dir: &Path) -> bool {
        // Read by hand: `verify` would look for whole neighbours of every damaged one.
        let text = fs::read_to_string(dir.join(MANIFEST)).unwrap_or_default();
        serde_json::from_str::<Self>(&text).is_ok_and(|manifest| {
            manifest.files.iter().all(|(name, record)| matches!(difference(&dir.join(name), record), Ok(None)))
        })
    }
}

/// Sizes and digests of the files in `dir`.
pub(super) fn records(dir: &Path, names: &[&str]) -> Result<BTreeMap<String, FileRecord>> {
    names.iter().map(|name| Ok(((*name).to_owned(), record(&dir.join(name))?))).collect()
}

fn difference(path: &Path, expected: &FileRecord) -> Result<Option<String>> {
    let size = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some("the file is missing".to_owned())),
        metadata => metadata.map_err(TrainError::io("inspect", path))?.len(),
    };
    if size != expected.size {
        return Ok(Some(format!("it has {size} bytes instead of {}", expected.size)));
    }
    let intact = record(path)?.sha256 == expected.sha256;
    Ok((!intact).then(|| "its content is not what was written (sha256 differs)".to_owned()))
}

fn record(path: &Path) -> Result<FileRecord> {
    let mut file = File::open(path).map_err(TrainError::io("open", path))?;
    let (mut hasher, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).map_err(TrainError::io("read", path))? {
            0 => break,
            count => {
                hasher.update(&buffer[..count]);
                size += count as u64;
            }
        }
    }
    Ok(FileRecord { size, sha256: hex::encode(hasher.finalize()) })
}
