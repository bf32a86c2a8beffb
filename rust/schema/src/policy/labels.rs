//! Labels of a dataset: where they come from, which columns they are, and what they say of themselves to a policy.

use super::learning::TeacherIdentity;
use serde::{Deserialize, Serialize};

/// Where labels come from: `hlrp label --source`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum LabelSource {
    /// The checkpoint's vectors and codes.
    Teacher,
    /// The sum of the actions of the pair: what no latent action can exceed.
    ActionAsLatent,
    /// Gaussian vectors and random codes in the shapes of the checkpoint's: what says nothing.
    Synthetic,
}

/// Which vectors of a dataset's labels are learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelVectors {
    /// Those of the codes.
    Code,
    /// Those before the quantizer.
    Continuous,
}

/// What `label_manifest.json` says of a dataset's labels to the policy that learns them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelDescription {
    /// What labelled, and the shape of its labels.
    pub teacher: TeacherIdentity,
    /// Mean and std, each with one value per dimension D of a vector, by which the teacher standardises its vectors. None for labels that
    /// are not a teacher's: their own statistics do.
    pub scale: Option<LabelScale>,
    /// `[K,D]`: the vectors of the codes.
    pub codebook: Option<Vec<Vec<f32>>>,
}

/// Mean and std of vectors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelScale {
    /// Mean.
    pub mean: Vec<f32>,
    /// Standard deviation, above 0.
    pub std: Vec<f32>,
}

/// The columns that `hlrp label` writes, without the prefix and its dot.
pub mod label_columns {
    /// `float32 [S,D]`, or `[A]`: vectors before the quantizer, or summed actions.
    pub const VECTORS: &str = "continuous_vector_latents";
    /// `int64 [S]`: codes.
    pub const CODES: &str = "codebook_id_latents";
    /// `float32 [S,D]`: vectors of the codes.
    pub const CODE_VECTORS: &str = "codebook_vector_latents";
    /// `int64 [1]`: 1 where the frame has a label.
    pub const VALID: &str = "valid";
    /// The file beside `meta/` that says what they are.
    pub const MANIFEST: &str = "label_manifest.json";
    /// The entry of that file with a [`LabelDescription`](super::LabelDescription).
    pub const DESCRIPTION: &str = "labels";
}
