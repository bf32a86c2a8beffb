//! What can go wrong with weight files.

use std::path::PathBuf;

/// An error of this crate. Its text names the file or tensor and what to do.
#[derive(Debug, thiserror::Error)]
pub enum NnError {
    /// A weight file cannot be read.
    #[error("{path}: {source}\nhint: the file is missing, truncated, or not in safetensors format", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: tch::TchError,
    },
    /// The names in a file are not those of the model.
    #[error("weights do not fit the model: {} missing ({}), {} unknown ({})\nhint: the weights belong to a model of another architecture or size",
        missing.len(), first(missing), unknown.len(), first(unknown))]
    Names {
        /// In the model, not in the file.
        missing: Vec<String>,
        /// In the file, not in the model.
        unknown: Vec<String>,
    },
    /// A tensor has another shape or number format than the model's.
    #[error(
        "weight `{name}` is {found}, the model needs {expected}\nhint: the weights belong to a model of another size"
    )]
    Tensor {
        /// Name of the tensor.
        name: String,
        /// What the model holds.
        expected: String,
        /// What the file holds.
        found: String,
    },
}

/// The first few names, for an error text.
fn first(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let mut text = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(", …");
    }
    text
}
