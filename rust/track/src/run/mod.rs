//! The run directory, with everything that a run records.
//!
//! ```text
//! <run>/
//!   config.yaml        the resolved configuration      overrides.yaml   what the command line changed
//!   run.json           who, where, when, from what     metrics.jsonl    scalars by step
//!   git-<n>.patch      changes against the commit, of session n
//!   unified.log        every log line                  checkpoints/     written by the engine
//!   plots/             plots of the whole run          validation/step-000080/  images of one validation
//! ```

mod artifact;
mod devices;
mod dir;
mod lock;
mod manifest;
mod provenance;

pub use artifact::Artifact;
pub use devices::Devices;
pub use dir::{RunDir, RunInfo, validation_dir};
pub use lock::{RunLock, is_in_use};
pub use manifest::{DataSource, FILE_NAME, LabelShare, Manifest, RunStatus, Session, SlurmJob, unix_seconds};
pub use provenance::GitState;
