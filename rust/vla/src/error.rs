//! What can go wrong in stage 2 besides the engine.

use hlrp_config::{Hint, Problem};
use std::path::PathBuf;

/// An error of this crate. Its text names the key, tensor or file.
#[derive(Debug, thiserror::Error)]
pub enum VlaError {
    /// An invalid setting, or an invalid description of a policy.
    #[error("{0}")]
    Problem(#[from] Problem),
    /// An observation or target that does not fit the model.
    #[error("{input}: {problem}")]
    Input {
        /// Which input.
        input: String,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// A loss or prediction that needs a head which the model was built without.
    #[error("this model has no {head} head")]
    NoHead {
        /// `latent` or `action`.
        head: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// A freezing rule that freezes nothing.
    #[error("the freezing rule `{pattern}` matches no parameter")]
    FreezesNothing {
        /// The rule.
        pattern: String,
        /// One parameter's name.
        example: String,
    },
    /// An artifact or checkpoint that is not what it should be.
    #[error("{path}: {problem}", path = path.display())]
    File {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// Weights, a backbone or a tokenizer that cannot be read or do not fit.
    #[error("{0}")]
    Nn(#[from] hlrp_nn::NnError),
    /// A file or folder that cannot be written.
    #[error("{0}")]
    Track(#[from] hlrp_track::TrackError),
    /// A dataset that cannot be read.
    #[error("{0}")]
    Data(#[from] hlrp_data::DataError),
    /// A stage 1 model that cannot be built or read.
    #[error("{0}")]
    Laq(#[from] hlrp_laq::LaqError),
    /// A signal interrupted the work.
    #[error("{0}")]
    Stopped(#[from] hlrp_train::Stopped),
    /// An operation that libtorch refuses.
    #[error("{0}")]
    Torch(#[from] hlrp_torch::TorchError),
}

impl Hint for VlaError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Stopped(_) => None,
            Self::Problem(problem) => problem.hint(),
            Self::Input { hint, .. } | Self::File { hint, .. } => Some(hint.clone()),
            Self::NoHead { hint, .. } => Some((*hint).to_owned()),
            Self::FreezesNothing { example, .. } => Some(format!("parameters are named like `{example}`")),
            Self::Nn(error) => error.hint(),
            Self::Track(error) => error.hint(),
            Self::Data(error) => error.hint(),
            Self::Laq(error) => error.hint(),
            Self::Torch(error) => error.hint(),
        }
    }
}

impl VlaError {
    pub(crate) fn input(input: impl Into<String>, problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Input { input: input.into(), problem: problem.into(), hint: hint.into() }
    }

    pub(crate) fn file(path: impl Into<PathBuf>, problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::File { path: path.into(), problem: problem.into(), hint: hint.into() }
    }
}
