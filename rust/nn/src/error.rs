//! What can go wrong with weights, model folders and tokenizers.

use hlrp_config::{Hint, Problem};
use hlrp_schema::hub::{is_repo_id, model_download_hint};
use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum NnError {
    /// Neither a folder nor a model in the Hugging Face cache.
    #[error("no model `{model}`: it is not a folder, and {hub_cache} has no snapshot of it", hub_cache = hub_cache.display())]
    NotFound {
        /// What was asked for.
        model: String,
        /// The cache that was searched.
        hub_cache: PathBuf,
    },
    /// A file or folder is missing, unreadable, or has other content than it should.
    #[error("{path}: {problem}", path = path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        hint: &'static str,
    },
    /// Weights that do not fit the model.
    #[error("{0}")]
    Torch(#[from] hlrp_torch::TorchError),
    /// The weights of a folder do not fit.
    #[error("{path}: {cause}", path = path.display())]
    Weights {
        /// The folder.
        path: PathBuf,
        /// Which tensor, and why.
        cause: Box<NnError>,
    },
    /// A file of weights in a format that only Python reads.
    #[error("{path} is a file of PyTorch, which can execute code when it is read", path = path.display())]
    NotSafetensors {
        /// The file.
        path: PathBuf,
    },
    /// Weights in another program's layout, of another architecture.
    #[error("{path} does not fit the model: tensors {differences}", path = path.display(), differences = differences.join("; "))]
    Layout {
        /// The file.
        path: PathBuf,
        /// What is missing, unknown or of another shape.
        differences: Vec<String>,
    },
    /// Sizes in a folder that are invalid or contradict each other.
    #[error("{path}: {problem}", path = path.display())]
    Sizes {
        /// The file that has them.
        path: PathBuf,
        /// Which sizes.
        problem: Box<Problem>,
    },
}

impl NnError {
    pub(crate) fn file(path: impl Into<PathBuf>, problem: impl ToString, hint: &'static str) -> Self {
        Self::File { path: path.into(), problem: problem.to_string(), hint }
    }
}

impl Hint for NnError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotFound { model, hub_cache } if is_repo_id(model) => model_download_hint(model, hub_cache),
            Self::NotFound { .. } => "give the path of a folder, or a name on the Hub: owner/name".to_owned(),
            Self::File { hint, .. } => (*hint).to_owned(),
            Self::Torch(error) => return error.hint(),
            Self::Weights { cause, .. } => return cause.hint(),
            Self::NotSafetensors { .. } => {
                "convert it first: python scripts/weights_to_safetensors.py FILE.ckpt FILE.safetensors".to_owned()
            }
            Self::Layout { .. } => {
                "choose the experiment and the sizes of the model that the weights are of".to_owned()
            }
            Self::Sizes { problem, .. } => return Hint::hint(problem.as_ref()),
        })
    }
}
