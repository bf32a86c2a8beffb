//! What can go wrong in stage 2 besides the engine.

use std::path::PathBuf;

/// An error of this crate. Its text names the key, tensor or file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum VlaError {
    /// A value of the model's configuration makes no model.
    #[error("model.{key}: {problem}\nhint: {hint}")]
    Config {
        /// Key below `model`.
        key: &'static str,
        /// What is wrong with its value.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// An observation or target that the model cannot take.
    #[error("{input}: {problem}\nhint: {hint}")]
    Input {
        /// Which input.
        input: String,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// A loss or prediction that needs a head which the model was built without.
    #[error("this model has no {head} head\nhint: {hint}")]
    NoHead {
        /// `latent` or `action`.
        head: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// A freezing rule that freezes nothing.
    #[error("the freezing rule `{pattern}` matches no parameter\nhint: parameters are named like `{example}`")]
    FreezesNothing {
        /// The rule.
        pattern: String,
        /// One parameter's name.
        example: String,
    },
    /// An artifact or checkpoint that is not what it should be.
    #[error("{path}: {problem}\nhint: {hint}", path = path.display())]
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
    /// A folder that cannot be published.
    #[error("{0}")]
    Publish(#[from] hlrp_track::TrackError),
    /// A stage 1 model that cannot be built or read.
    #[error(transparent)]
    Laq(#[from] hlrp_laq::LaqError),
    /// An operation that libtorch refuses.
    #[error(transparent)]
    Torch(#[from] hlrp_torch::TorchError),
}

impl VlaError {
    pub(crate) fn config(key: &'static str, problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Config { key, problem: problem.into(), hint: hint.into() }
    }

    pub(crate) fn input(input: impl Into<String>, problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Input { input: input.into(), problem: problem.into(), hint: hint.into() }
    }

    pub(crate) fn file(path: impl Into<PathBuf>, problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::File { path: path.into(), problem: problem.into(), hint: hint.into() }
    }
}
