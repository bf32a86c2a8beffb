//! What can go wrong with a backbone folder.

use crate::NnError;
use std::path::PathBuf;

/// An error of the backbone. Its text names the file or key and what to do.
#[derive(Debug, thiserror::Error)]
pub enum SmolVlmError {
    /// Neither a folder nor a model in the Hugging Face cache.
    #[error("no model `{model}`: it is not a folder, and {hub_cache} has no snapshot of it\nhint: run `hf download {model}` on a machine with network access if this is a name on the Hub, else give the path of a folder", hub_cache = hub_cache.display())]
    NotFound {
        /// What was asked for.
        model: String,
        /// The cache that was searched.
        hub_cache: PathBuf,
    },
    /// A file of the folder is absent or cannot be read.
    #[error("{path}: {problem}\nhint: {hint}", path = path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        hint: &'static str,
    },
    /// A value of `config.json` is missing or names a variant that this backbone is not.
    #[error("{path}: `{key}` {problem}\nhint: this backbone reads SmolVLM models as transformers saves them", path = path.display())]
    HfConfig {
        /// The file.
        path: PathBuf,
        /// Full key, such as `text_config.hidden_act`.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Sizes that contradict each other.
    #[error("backbone sizes: {problem}\nhint: {hint}")]
    Sizes {
        /// Which sizes.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// Weights that do not fit.
    #[error("{path}: {cause}", path = path.display())]
    Weights {
        /// The folder or file.
        path: PathBuf,
        /// Which tensor, and why.
        cause: NnError,
    },
    /// The tokenizer cannot do what is asked.
    #[error("tokenizer {path}: {problem}\nhint: {hint}", path = path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
        /// What to do.
        hint: &'static str,
    },
}
