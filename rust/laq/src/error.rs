//! What can go wrong in stage 1 besides the engine.

use std::path::PathBuf;

/// An error of this crate. Its text names the key or file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum LaqError {
    /// An invalid setting.
    #[error("{0}")]
    Problem(#[from] hlrp_config::Problem),
    /// Frames that the model cannot take.
    #[error(
        "frames of shape {found:?} do not fit the model: it needs {expected}\nhint: set data.request.image_deltas to two offsets and let the loader resize to model.image_size"
    )]
    Frames {
        /// Shape of the batch.
        found: Vec<i64>,
        /// Shape in words.
        expected: String,
    },
    /// A batch without the image stream that this stage reads.
    #[error(
        "the batch has no image stream `{role}`, only {available:?}\nhint: name one camera `{role}` under data.sources.<name>.cameras"
    )]
    Stream {
        /// The role asked for.
        role: String,
        /// The roles that exist.
        available: Vec<String>,
    },
    /// A checkpoint folder that is not one of this stage.
    #[error("{path}: {problem}\nhint: give a checkpoint folder of stage 1 (it holds manifest.json and model.safetensors)", path = path.display())]
    Checkpoint {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A decoder that the model was built without.
    #[error("this model has no {0} decoder\nhint: enable model.{0}_decoder when training")]
    NoDecoder(&'static str),
    /// Weights that cannot be read or do not fit.
    #[error(transparent)]
    Weights(#[from] hlrp_nn::NnError),
}
