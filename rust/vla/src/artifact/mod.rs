//! What a training leaves behind for the next stage: a folder with
//!
//! ```text
//! manifest.json            what the model is and how its inputs are prepared; size and digest of every other file
//! model.safetensors        every parameter and buffer under the model's names, float32
//! tokenizer.json           the tokenizer
//! tokenizer_config.json
//! ```
//!
//! Reading is strict: a key or tensor too few or too many is an error, as is a listed file that is missing or differs from its digest.
//! Files that the manifest does not list (a README, say) are left alone.

mod files;
mod load;
mod manifest;
mod save;

pub use hlrp_schema::PairSpacing;
pub use load::Artifact;
pub use manifest::{Manifest, Provenance, TeacherIdentity};
pub use save::Description;

/// File names in an artifact.
const MANIFEST: &str = "manifest.json";
const WEIGHTS: &str = "model.safetensors";
