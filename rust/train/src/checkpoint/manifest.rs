//! What a checkpoint says about itself.

use super::{CONFIG, MODEL, OPTIMIZER, STATE, location::whole_neighbour};
use crate::{
    error::{Result, TrainError},
    update::DecayGroup,
};
use hlrp_config::{
    foreign::{is_plain_name, read_text},
    from_resolved,
};
use hlrp_schema::{PROJECT, Precision, TaskDescription};
use hlrp_track::fs::FileDigest;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

/// Name of the file in a checkpoint.
pub(super) const FILE_NAME: &str = "checkpoint.json";
/// Its name in format 1.
const FORMER_NAME: &str = "manifest.json";

/// `checkpoint.json`.
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
    pub precision: Precision,
    /// Which parameters decay, and which do not.
    pub optimizer_groups: [DecayGroup; 2],
    /// [`crate::Task::description`].
    pub task: TaskDescription,
    /// Every other file by name.
    pub files: BTreeMap<String, FileDigest>,
    /// Format version of the file that was read; what was migrated is of an older one.
    #[serde(skip)]
    pub(crate) written_in: u64,
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

impl Manifest {
    /// Step and content, for a comparison: `step 12 (model.safetensors 1f0a93…, …)`, with the start of the SHA-256 of each file.
    pub(crate) fn identity(&self) -> String {
        let of_file =
            |(name, file): (&String, &FileDigest)| format!("{name} {}", file.sha256.get(..12).unwrap_or(&file.sha256));
        format!("step {} ({})", self.step, self.files.iter().map(of_file).collect::<Vec<_>>().join(", "))
    }

    /// Name of the format.
    pub const FORMAT: &str = "hlrp-checkpoint";
    /// Version of the format that this crate writes; older ones are migrated when read.
    pub const FORMAT_VERSION: u64 = 6;

    /// The file of the checkpoint `dir`: `checkpoint.json`, or what format 1 called it; none where there is no checkpoint.
    pub(crate) fn path(dir: &Path) -> Option<PathBuf> {
        [FILE_NAME, FORMER_NAME].map(|name| dir.join(name)).into_iter().find(|path| path.is_file())
    }

    /// Reads what the checkpoint `dir` says about itself.
    ///
    /// # Errors
    /// A file that is missing or damaged, or of a newer format version.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = Self::path(dir).unwrap_or_else(|| dir.join(FILE_NAME));
        let damaged = |reason: String| TrainError::Damaged { path: path.clone(), reason, hint: whole_neighbour(dir) };
        let text = match read_text(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(damaged("the file is missing".to_owned()));
            }
            read => read.map_err(TrainError::io("read", &path))?,
        };
        let value: Value = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        match value.get("format_version").and_then(Value::as_u64) {
            Some(1..=Self::FORMAT_VERSION) => Self::typed(value, dir).map_err(damaged),
            Some(found) => Err(TrainError::FormatVersion { path, found, wanted: Self::FORMAT_VERSION }),
            None => Err(damaged("it has no format_version".to_owned())),
        }
    }

    /// Types the content of the file; that of an older format version is brought up to date. What such a file does not say of its task
    /// is in the configuration of the checkpoint `dir`.
    fn typed(mut value: Value, dir: &Path) -> Result<Self, String> {
        let written_in = value["format_version"].as_u64().unwrap_or_default();
        if written_in < Self::FORMAT_VERSION {
            value["format_version"] = Self::FORMAT_VERSION.into();
            let settings = from_resolved(&PROJECT, &dir.join(CONFIG), &[]).ok().map(|config| config.tree().to_json());
            let task = TaskDescription::read(value["task"].take(), written_in == 1, settings.as_ref())?;
            value["task"] = serde_json::to_value(task).map_err(|error| error.to_string())?;
        }
        let typed: Self = serde_json::from_value(value).map_err(|error| error.to_string())?;
        Ok(Self { written_in, ..typed })
    }

    /// Reads what the checkpoint `dir` says about itself and compares every file with its digest.
    ///
    /// # Errors
    /// As [`Manifest::read`]; [`TrainError::Damaged`] for the first file that is missing or differs, with another
    /// checkpoint that is whole as the hint.
    pub fn verify(dir: &Path) -> Result<Self> {
        let manifest = Self::read(dir)?;
        for required in [MODEL, OPTIMIZER, STATE, CONFIG] {
            if !manifest.files.contains_key(required) {
                let path = Self::path(dir).unwrap_or_else(|| dir.join(FILE_NAME));
                let reason = format!("it does not list {required}");
                return Err(TrainError::Damaged { path, reason, hint: whole_neighbour(dir) });
            }
        }
        if let Some(name) = manifest.files.keys().find(|name| !is_plain_name(name)) {
            let path = Self::path(dir).unwrap_or_else(|| dir.join(FILE_NAME));
            let reason = format!("files: `{name}` is not the name of a file in this folder");
            return Err(TrainError::Damaged { path, reason, hint: whole_neighbour(dir) });
        }
        manifest.files.keys().try_for_each(|name| manifest.verify_file(dir, name))?;
        Ok(manifest)
    }

    /// Compares one file of the checkpoint `dir` with its digest, if it is listed.
    ///
    /// # Errors
    /// [`TrainError::Damaged`], with another checkpoint that is whole as the hint.
    pub(crate) fn verify_file(&self, dir: &Path, name: &str) -> Result<()> {
        let Some(digest) = self.files.get(name) else { return Ok(()) };
        match digest.difference(&dir.join(name))? {
            Some(reason) => Err(TrainError::Damaged { path: dir.join(name), reason, hint: whole_neighbour(dir) }),
            None => Ok(()),
        }
    }

    /// Whether the checkpoint `dir` is whole.
    pub(super) fn is_whole(dir: &Path) -> bool {
        // Read by hand: `verify` would look for whole neighbours of every damaged one.
        let text = Self::path(dir).and_then(|path| read_text(&path).ok()).unwrap_or_default();
        let value: Result<Value, String> = serde_json::from_str(&text).map_err(|error| error.to_string());
        let manifest = value.and_then(|value| Self::typed(value, dir));
        manifest.is_ok_and(|manifest| {
            let mut files = manifest.files.iter();
            files.all(|(name, digest)| is_plain_name(name) && matches!(digest.difference(&dir.join(name)), Ok(None)))
        })
    }
}

/// Sizes and digests of the files in `dir`.
pub(super) fn digests(dir: &Path, names: &[&str]) -> Result<BTreeMap<String, FileDigest>> {
    names.iter().map(|name| Ok(((*name).to_owned(), FileDigest::of(&dir.join(name))?))).collect()
}
