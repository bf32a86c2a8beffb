//! Who labels the frame pairs of a batch: a teacher while the policy trains, or `hlrp label` before, in columns of the datasets.
//!
//! Labels of a teacher's codes are the same numbers either way. Labels without codes (vectors before the quantizer, summed actions) are
//! standardised by the statistics of the datasets.
//!
//! Shape suffixes: B samples, S code slots, K codes, D dimensions of a code vector.

mod columns;
mod rows;

pub(crate) use columns::{LabelColumns, Labelled};
pub use rows::DatasetLabels;

use crate::VlaError;
use crate::teacher::Teacher;
use hlrp_schema::policy::TeacherIdentity;
use tch::Tensor;

/// Who labels.
pub(crate) enum Labelling {
    /// A stage 1 model, while the policy trains.
    Online(Box<Teacher>),
    /// Columns of the datasets.
    Columns(LabelColumns),
}

impl Labelling {
    /// What labels, and the shape of the labels.
    pub(crate) fn identity(&self) -> &TeacherIdentity {
        match self {
            Self::Online(teacher) => teacher.identity(),
            Self::Columns(columns) => columns.identity(),
        }
    }

    /// Standardised vectors `float32 [B,S,D]` of codes `int64 [B,S]`.
    ///
    /// # Errors
    /// Labels without codes.
    pub(crate) fn vectors(&self, codes_BS: &Tensor) -> Result<Tensor, VlaError> {
        match self {
            Self::Online(teacher) => teacher.vectors(codes_BS),
            Self::Columns(columns) => columns.vectors(codes_BS),
        }
    }

    /// The codes `int64 [B,S]` whose vectors are nearest to predicted ones `[B,S,D]`.
    ///
    /// # Errors
    /// Labels without codes.
    pub(crate) fn nearest(&self, latents_BSD: &Tensor) -> Result<Tensor, VlaError> {
        match self {
            Self::Online(teacher) => teacher.nearest(latents_BSD),
            Self::Columns(columns) => columns.nearest(latents_BSD),
        }
    }
}
