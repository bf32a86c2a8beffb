//! `artifact.json`: what an artifact says of itself.

use crate::VlaError;
use hlrp_config::{
    Hint, Problem,
    foreign::{MAX_WEIGHT_BYTES, inspect, is_plain_name, read_text},
};
use hlrp_nn::smolvlm::TOKENIZER_FILES;
use hlrp_schema::PolicySpec;
use hlrp_schema::plugin::ARTIFACT_FILES;
use hlrp_schema::policy::{from_version_1, migrate_policy};
use hlrp_track::fs::FileDigest;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The file; older versions had another name for it.
pub(super) const FILE: &str = ARTIFACT_FILES[0];
/// The weights.
pub(super) const WEIGHTS: &str = "model.safetensors";

/// What to do about an artifact that is not as it was written.
const DAMAGED: &str = "the artifact was changed or damaged: write it again from its run, or copy it again";

/// What an artifact says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArtifactRecord {
    /// [`ArtifactRecord::FORMAT`].
    pub format: String,
    /// [`ArtifactRecord::FORMAT_VERSION`].
    pub format_version: u64,
    /// Version of the program that wrote it.
    pub hlrp: String,
    /// The policy, resolved.
    pub policy: PolicySpec,
    /// Where it comes from.
    pub provenance: Provenance,
    /// Every other file by name.
    pub files: BTreeMap<String, FileDigest>,
}

/// The training that made an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Name of the experiment.
    pub experiment: String,
    /// Optimizer steps done.
    pub step: u64,
}

/// The record of the folder `dir`, of this version or an older one.
fn file_in(dir: &Path) -> Option<PathBuf> {
    ARTIFACT_FILES.iter().map(|name| dir.join(name)).find(|path| path.is_file())
}

impl ArtifactRecord {
    /// Name of the format.
    pub const FORMAT: &str = "hlrp-vla-artifact";
    /// Version of the format that is written; older ones are read too.
    pub const FORMAT_VERSION: u64 = 3;

    pub(super) fn new(policy: PolicySpec, provenance: Provenance, files: BTreeMap<String, FileDigest>) -> Self {
        Self {
            format: Self::FORMAT.to_owned(),
            format_version: Self::FORMAT_VERSION,
            hlrp: env!("CARGO_PKG_VERSION").to_owned(),
            policy,
            provenance,
            files,
        }
    }

    /// Reads and checks the record of the artifact `dir`, and compares every file with it.
    ///
    /// # Errors
    /// The first thing that is wrong: the text names the file or key.
    pub fn verify(dir: &Path) -> Result<Self, VlaError> {
        let path = file_in(dir).unwrap_or_else(|| dir.join(FILE));
        let record = Self::read(&path)?;
        record.check(&path)?;
        for (name, digest) in &record.files {
            compare(&dir.join(name), digest)?;
        }
        Ok(record)
    }

    fn read(path: &Path) -> Result<Self, VlaError> {
        let refuse = |problem: String, hint: &str| VlaError::file(path, problem, hint);
        let text =
            read_text(path).map_err(|error| refuse(error.to_string(), "give the folder of an artifact of stage 2"))?;
        let value: Value =
            serde_json::from_str(&text).map_err(|error| refuse(format!("invalid JSON: {error}"), DAMAGED))?;
        let format = (value.get("format").and_then(Value::as_str), value.get("format_version").and_then(Value::as_u64));
        let value = match format {
            (Some(Self::FORMAT), Some(1)) => from_format_1(value).map_err(|problem| refuse(problem, DAMAGED))?,
            (Some(Self::FORMAT), Some(2)) => from_format_2(value),
            (Some(Self::FORMAT), Some(Self::FORMAT_VERSION)) => value,
            _ => {
                let text = |key: &str| value.get(key).map_or("nothing".to_owned(), Value::to_string);
                let problem = format!(
                    "its format is {} version {}, this program reads \"{}\" up to version {}",
                    text("format"),
                    text("format_version"),
                    Self::FORMAT,
                    Self::FORMAT_VERSION
                );
                return Err(refuse(problem, "use the version of hlrp that wrote the artifact, or a newer one"));
            }
        };
        serde_json::from_value(value).map_err(|error| refuse(error.to_string(), DAMAGED))
    }

    /// Checks the description and the list of files. `path` is named in errors.
    fn check(&self, path: &Path) -> Result<(), VlaError> {
        let refuse = |problem: String| Err(VlaError::file(path, problem, DAMAGED));
        for name in self.files.keys() {
            if !is_plain_name(name) {
                return refuse(format!("files: `{name}` is not the name of a file in this folder"));
            }
        }
        for name in [WEIGHTS].iter().chain(&TOKENIZER_FILES) {
            if !self.files.contains_key(*name) {
                return refuse(format!("files: `{name}` is not listed"));
            }
        }
        let of_file = |problem: Problem| {
            let hint = Hint::hint(&problem).unwrap_or_else(|| DAMAGED.to_owned());
            VlaError::file(path, problem.inside("policy").to_string(), hint)
        };
        self.policy.check_resolved().map_err(of_file)
    }
}

/// A record of version 1 as one of this version.
fn from_format_1(mut value: Value) -> Result<Value, String> {
    let Some(map) = value.as_object_mut() else { return Err("it is not an object".to_owned()) };
    let description = ["model", "processor", "objective", "teacher"]
        .map(|key| map.remove(key).map(|value| (key.to_owned(), value)).ok_or(format!("missing field `{key}`")));
    let description: serde_json::Map<String, Value> = description.into_iter().collect::<Result<_, _>>()?;
    value["policy"] = from_version_1(&description.into(), None)?;
    value["format_version"] = json!(ArtifactRecord::FORMAT_VERSION);
    Ok(value)
}

/// A record of version 2 as one of this version.
fn from_format_2(mut value: Value) -> Value {
    migrate_policy(&mut value["policy"]);
    value["format_version"] = json!(ArtifactRecord::FORMAT_VERSION);
    value
}

/// Compares a file with its digest.
fn compare(path: &Path, expected: &FileDigest) -> Result<(), VlaError> {
    let refuse = |problem: String| Err(VlaError::file(path, problem, DAMAGED));
    match inspect(path, MAX_WEIGHT_BYTES) {
        Err(error) => return refuse(error.to_string()),
        Ok(size) if size != expected.size => {
            return refuse(format!("it has {size} bytes instead of {}", expected.size));
        }
        Ok(_) => {}
    }
    if FileDigest::of(path)?.sha256 == expected.sha256 {
        return Ok(());
    }
    refuse("its content is not what was written (sha256 differs)".to_owned())
}
