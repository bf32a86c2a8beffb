//! What a policy learns, and the latent action model that labels for it.

use super::LatentShape;
use super::labels::LabelVectors;
use crate::description::PairSpacing;
use crate::rules::{Checked, at_least, not_negative, require};
use hlrp_config::Check;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What a policy learns or predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The teacher's latent actions.
    Latent,
    /// Real actions.
    Actions,
    /// Both, from one look at the observation.
    Multitask,
}

impl Mode {
    /// Whether latent actions are learned, and a teacher is needed.
    pub fn with_latents(self) -> bool {
        self != Self::Actions
    }

    /// Whether real actions are learned.
    pub fn with_actions(self) -> bool {
        self != Self::Latent
    }
}

/// What is learned, and the weights of its losses.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectiveSpec {
    /// Which losses there are.
    pub mode: Mode,
    /// Factor on the latent loss.
    pub latent_loss_weight: f64,
    /// Factor on the action loss.
    pub action_loss_weight: f64,
}

impl Check for ObjectiveSpec {
    fn check(&self) -> Checked {
        not_negative("latent_loss_weight", self.latent_loss_weight)?;
        not_negative("action_loss_weight", self.action_loss_weight)?;
        let (key, sum) = match self.mode {
            Mode::Latent => ("latent_loss_weight", self.latent_loss_weight),
            Mode::Actions => ("action_loss_weight", self.action_loss_weight),
            Mode::Multitask => ("action_loss_weight", self.latent_loss_weight + self.action_loss_weight),
        };
        require(sum > 0.0, key, "nothing is left to learn in this mode", "set it above 0")
    }
}

/// Section `teacher`: the latent action model that labels frame pairs. Its identity is null until it is resolved; values given before that
/// confirm the checkpoint's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // each key is explained next to its default in config/policy/; see also TeacherIdentity
pub struct TeacherSpec {
    pub checkpoint: Option<PathBuf>,
    // A resolved description names neither, and is what programs write and read that do not know them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_prefix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_vectors: Option<LabelVectors>,
    pub weights: TeacherWeights,
    pub camera: String,
    pub sha256: Option<String>,
    pub codebook_size: Option<i64>,
    pub code_seq_len: Option<i64>,
    pub code_dim: Option<i64>,
    pub image_size: Option<i64>,
    pub pair: Option<PairSpacing>,
}

/// Which weights the teacher has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TeacherWeights {
    /// Those of its checkpoint.
    Trained,
    /// Fresh ones: the control experiment.
    Random,
}

/// Which latent action model labels, and the shape of its labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherIdentity {
    /// SHA-256 of the file with its weights (the averaged ones, when its training averaged), in hexadecimal digits. Of a teacher with
    /// random weights: of a text with its seed and its architecture.
    pub sha256: String,
    /// Codes K; none for continuous latents.
    pub codebook_size: Option<i64>,
    /// Code slots S.
    pub code_seq_len: i64,
    /// Dimensions D of a code vector.
    pub code_dim: i64,
    /// Side of its frames in pixels.
    pub image_size: i64,
    /// Spacing of its frame pairs.
    pub pair: PairSpacing,
}

impl TeacherIdentity {
    /// Shape of the latent actions that a policy learns from it.
    pub fn latent(&self) -> LatentShape {
        LatentShape { code_seq_len: self.code_seq_len, code_dim: self.code_dim, codebook_size: self.codebook_size }
    }
}

impl TeacherSpec {
    /// The identity of a resolved teacher; none for a policy that learned real actions only.
    pub fn identity(&self) -> Option<TeacherIdentity> {
        Some(TeacherIdentity {
            sha256: self.sha256.clone()?,
            codebook_size: self.codebook_size,
            code_seq_len: self.code_seq_len?,
            code_dim: self.code_dim?,
            image_size: self.image_size?,
            pair: self.pair.clone()?,
        })
    }

    /// Takes over the identity of the teacher, where there is one, and drops its path.
    ///
    /// # Errors
    /// A value that was given and differs from the teacher's.
    pub fn resolve(&mut self, teacher: Option<&TeacherIdentity>) -> Checked {
        fn fill<T: PartialEq + Clone + std::fmt::Debug>(key: &str, given: &mut Option<T>, own: &T) -> Checked {
            let message = format!("the teacher's is {own:?}");
            let hint = "set it to null to take the teacher's, or choose another teacher";
            require(given.as_ref().is_none_or(|given| given == own), key, message, hint)?;
            *given = Some(own.clone());
            Ok(())
        }
        (self.checkpoint, self.label_prefix, self.label_vectors) = (None, None, None);
        let Some(teacher) = teacher else {
            let Self { weights, camera, .. } = &*self;
            *self = Self::none(*weights, camera.clone());
            return Ok(());
        };
        match teacher.codebook_size {
            Some(size) => fill("codebook_size", &mut self.codebook_size, &size)?,
            None => {
                require(self.codebook_size.is_none(), "codebook_size", "the teacher has no codes", "set it to null")?
            }
        }
        fill("code_seq_len", &mut self.code_seq_len, &teacher.code_seq_len)?;
        fill("code_dim", &mut self.code_dim, &teacher.code_dim)?;
        fill("image_size", &mut self.image_size, &teacher.image_size)?;
        fill("pair", &mut self.pair, &teacher.pair)?;
        fill("sha256", &mut self.sha256, &teacher.sha256)
    }

    /// The section of a policy without a teacher.
    pub fn none(weights: TeacherWeights, camera: String) -> Self {
        Self {
            checkpoint: None,
            label_prefix: None,
            label_vectors: None,
            weights,
            camera,
            sha256: None,
            codebook_size: None,
            code_seq_len: None,
            code_dim: None,
            image_size: None,
            pair: None,
        }
    }
}

impl Check for TeacherSpec {
    fn check(&self) -> Checked {
        require(
            self.checkpoint.is_none() || self.label_prefix.is_none(),
            "label_prefix",
            "there is a checkpoint too",
            "set policy.teacher.checkpoint=null to learn the labels of the datasets",
        )?;
        require(
            self.label_vectors.is_none() || self.label_prefix.is_some(),
            "label_vectors",
            "there are no labels",
            "set policy.teacher.label_prefix, or set it to null",
        )?;
        require(!self.camera.is_empty(), "camera", "an empty role", "name a role of data.sources.<name>.cameras")?;
        let sizes = [
            ("codebook_size", self.codebook_size),
            ("code_seq_len", self.code_seq_len),
            ("code_dim", self.code_dim),
            ("image_size", self.image_size),
        ];
        sizes.into_iter().try_for_each(|(key, value)| at_least(key, value.unwrap_or(1), 1))
    }
}
