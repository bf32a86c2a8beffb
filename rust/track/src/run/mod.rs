//! The run directory, with everything that a run records.
//!
//! ```text
//! <run>/
//!   config.yaml        the resolved configuration      overrides.yaml   what the command line changed
//!   run.json           who, where, when, from what     metrics.jsonl    scalars by step
//!   unified.log        every log line                  checkpoints/     written by the engine
//!   plots/             plots of the whole run          validation/step-000080/  images of one validation
//! ```

mod dir;
mod lock;
mod manifest;
mod provenance;

pub use dir::{RunDir, RunInfo, validation_dir};
pub(crate) use lock::RunLock;
pub use manifest::{Artifact, FILE_NAME, Manifest, RunStatus, Session, SlurmJob};
pub use provenance::GitState;
