//! Checkpoints: folders that appear whole or not at all.
//!
//! ```text
//! <run>/checkpoints/
//!   last                     name of the newest checkpoint
//!   best                     name of the best one by training.checkpoint.monitor
//!   step-000080/
//!     model.safetensors      parameters and buffers
//!     optimizer.safetensors  exp_avg.<p>, exp_avg_sq.<p>, step.<p>
//!     ema.safetensors        averaged parameters, when training.ema.enabled
//!     state.json             step, data position, random states, schedule, best score
//!     config.yaml            the resolved configuration
//!     manifest.json          size and sha256 of each file above; what the model is; the score of these weights
//! ```
//!
//! A kill at any moment leaves the former checkpoints and pointers as they were; the hidden folder `.step-….partial` that it may
//! leave behind is no checkpoint and is cleared when that step is written again.

mod contents;
mod location;
mod manifest;
mod prune;
mod reader;
mod state;
mod writer;

pub use location::{checkpoint_name, find};
pub use manifest::{FileRecord, Manifest, Score};
pub use reader::{Checkpoint, load_weights, read_weights};
pub use state::{BestScore, RunState, ScheduleState};

pub(crate) use contents::{About, Contents};
pub(crate) use location::{point_to, whole_neighbour};
pub(crate) use prune::prune;
pub(crate) use state::RngStates;
pub(crate) use writer::write;

pub(crate) const MODEL: &str = "model.safetensors";
pub(crate) const OPTIMIZER: &str = "optimizer.safetensors";
pub(crate) const EMA: &str = "ema.safetensors";
pub(crate) const STATE: &str = "state.json";
pub(crate) const CONFIG: &str = "config.yaml";
pub(crate) const MANIFEST: &str = "manifest.json";
/// Pointer to the newest checkpoint.
pub(crate) const LAST: &str = "last";
/// Pointer to the best checkpoint.
pub(crate) const BEST: &str = "best";
