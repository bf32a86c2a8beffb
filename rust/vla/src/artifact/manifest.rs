//! What an artifact says about itself.

use super::{MANIFEST, WEIGHTS, files};
use crate::{ModelConfig, Objective, ProcessorConfig, VlaError};
use hlrp_nn::smolvlm::TOKENIZER_FILES;
use hlrp_schema::PairSpacing;
use hlrp_track::fs::FileDigest;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::Path};

/// `manifest.json` of an artifact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`Manifest::FORMAT`].
    pub format: String,
    /// [`Manifest::FORMAT_VERSION`].
    pub format_version: u64,
    /// Version of the program that wrote it.
    pub hlrp: String,
    /// Sizes of the model.
    pub model: ModelConfig,
    /// How its inputs are prepared.
    pub processor: ProcessorConfig,
    /// What it learned.
    pub objective: Objective,
    /// Who labelled its latent actions; none when it learned real actions only.
    pub teacher: Option<TeacherIdentity>,
    /// Where it comes from.
    pub provenance: Provenance,
    /// Every other file by name.
    pub files: BTreeMap<String, FileDigest>,
}

/// The latent action model whose codes a policy predicts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherIdentity {
    /// SHA-256 of the file with its weights (the averaged ones, when its training averaged), in hexadecimal digits. Of a teacher with
    /// random weights: of a text with its seed and its architecture.
    pub sha256: String,
    /// Codes K.
    pub codebook_size: i64,
    /// Code slots S.
    pub code_seq_len: i64,
    /// Numbers of one code vector D.
    pub code_dim: i64,
    /// Side of its pictures in pixels.
    pub image_size: i64,
    /// How far apart the frames of its pairs lie.
    pub pair: PairSpacing,
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

impl Manifest {
    /// Name of the format.
    pub const FORMAT: &str = "hlrp-vla-artifact";
    /// Version of the format that this crate writes and reads.
    pub const FORMAT_VERSION: u64 = 1;

    /// Reads and checks the manifest of the artifact `dir`, and compares every file with it.
    ///
    /// # Errors
    /// The first thing that is wrong: the text names the file or key.
    pub fn verify(dir: &Path) -> Result<Self, VlaError> {
        let manifest = Self::read(dir)?;
        manifest.check(&dir.join(MANIFEST))?;
        for (name, record) in &manifest.files {
            files::compare(&dir.join(name), record)?;
        }
        Ok(manifest)
    }

    fn read(dir: &Path) -> Result<Self, VlaError> {
        let path = dir.join(MANIFEST);
        let refuse = |problem: String, hint: &str| VlaError::file(&path, problem, hint);
        let text = fs::read_to_string(&path)
            .map_err(|error| refuse(error.to_string(), "give the folder of an artifact of stage 2"))?;
        let value: Value =
            serde_json::from_str(&text).map_err(|error| refuse(format!("it is no JSON: {error}"), files::DAMAGED))?;
        let format = (value.get("format").and_then(Value::as_str), value.get("format_version").and_then(Value::as_u64));
        if format != (Some(Self::FORMAT), Some(Self::FORMAT_VERSION)) {
            let text = |key: &str| value.get(key).map_or("nothing".to_owned(), Value::to_string);
            let problem = format!(
                "its format is {} version {}, this program reads \"{}\" version {}",
                text("format"),
                text("format_version"),
                Self::FORMAT,
                Self::FORMAT_VERSION
            );
            return Err(refuse(problem, "use the version of hlrp that wrote the artifact"));
        }
        serde_json::from_value(value).map_err(|error| refuse(error.to_string(), files::DAMAGED))
    }

    /// Checks that the parts agree with each other. `path` stands in errors.
    pub(super) fn check(&self, path: &Path) -> Result<(), VlaError> {
        let refuse = |problem: String| Err(VlaError::file(path, problem, files::DAMAGED));
        for name in self.files.keys() {
            if !files::is_plain_name(name) {
                return refuse(format!("files: `{name}` is not the name of a file in this folder"));
            }
        }
        for name in [WEIGHTS].iter().chain(&TOKENIZER_FILES) {
            if !self.files.contains_key(*name) {
                return refuse(format!("files: `{name}` is not listed"));
            }
        }
        if self.processor.cameras != self.model.cameras() {
            return refuse(format!(
                "processor.cameras {:?} and the model's {:?} differ",
                self.processor.cameras,
                self.model.cameras()
            ));
        }
        if self.processor.image_size != self.model.image_size() {
            return refuse(format!(
                "processor.image_size {:?} and the model's {:?} differ",
                self.processor.image_size,
                self.model.image_size()
            ));
        }
        self.processor.check()?;
        if let (Some(normalization), Some(dim)) = (&self.processor.action, self.model.action_dim())
            && normalization.dim as i64 != dim
        {
            return refuse(format!("processor.action has {} numbers, the model's action {dim}", normalization.dim));
        }
        if self.objective.mode.with_actions() && self.processor.action.is_none() {
            return refuse("the model learned actions but processor.action is missing".to_owned());
        }
        self.check_teacher(path)
    }

    fn check_teacher(&self, path: &Path) -> Result<(), VlaError> {
        let refuse = |problem: String| Err(VlaError::file(path, problem, files::DAMAGED));
        match (&self.teacher, self.model.latent()) {
            (None, _) if self.objective.mode.with_latents() => {
                refuse("the model learned latent actions but teacher is missing".to_owned())
            }
            (Some(teacher), Some(latent))
                if (teacher.code_seq_len, teacher.code_dim) != (latent.code_seq_len, latent.code_dim) =>
            {
                refuse(format!(
                    "the teacher has {} codes of {} numbers, the model's latent head {} of {}",
                    teacher.code_seq_len, teacher.code_dim, latent.code_seq_len, latent.code_dim
                ))
            }
            _ => Ok(()),
        }
    }
}
