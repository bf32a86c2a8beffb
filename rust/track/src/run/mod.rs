//! The run directory: where one run keeps everything it leaves behind.
//!
//! ```text
//! <run>/
//!   config.yaml        the resolved configuration      overrides.yaml   what the command line changed
//!   manifest.json      who, where, when, from what     metrics.jsonl    numbers by step
//!   unified.log        every log line                  checkpoints/     written by the engine
//!   plots/             pictures of the whole run       validation/step-000080/  pictures of one validation
//! ```

mod dir;
mod lock;
mod manifest;
mod provenance;

pub use dir::{RunDir, RunInfo};
pub use manifest::{Artifact, Manifest, RunStatus, Session, SlurmJob};
pub use provenance::{GitState, redact};
