//! Checkpoints: folders that appear whole or not at all.
//!
//! ```text
//! <run>/checkpoints/
//!   last                     name of the newest checkpoint
//!   best                     name of the best one by training.checkpoint.monitor
//!   step-000080/
//!     model.safetensors      parameters and buffers
//!     optimizer.safetensors  exp_avg.<p>, exp_avg_sq.<p>, step.<p>
//!     ema.safetensors        averaged parameters, from the first update of training.ema on
//!     state.json             step, data position, random states, schedule, best score, fingerprints of the data
//!     config.yaml            the resolved configuration
//!     checkpoint.json        size and sha256 of each file above; the task; the score of these weights
//! ```
//!
//! A kill at any moment leaves the former checkpoints and pointers as they were; the hidden folder `.step-….partial` that it may
//! leave is not a checkpoint and is cleared when that step is written again.

mod location;
mod manifest;
mod publisher;
mod state;
mod writer;

pub use location::{checkpoint_name, find};
pub use manifest::{Manifest, Score};
pub use state::{BestScore, RunState, ScheduleState};
pub use writer::publish_weights;

pub(crate) use publisher::{Publication, Publisher};
pub(crate) use state::RngStates;
pub(crate) use writer::Contents;

use crate::error::{Result, TrainError};
use hlrp_config::foreign::{MAX_WEIGHT_BYTES, inspect, read_text};
use hlrp_track::fs::FileDigest;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use tch::Tensor;

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const EMA: &str = "ema.safetensors";
/// Where a run is.
pub(crate) const STATE: &str = "state.json";
const CONFIG: &str = "config.yaml";
/// Pointer to the newest checkpoint.
pub(crate) const LAST: &str = "last";
/// Pointer to the best checkpoint.
pub(crate) const BEST: &str = "best";

/// A whole checkpoint: every file is what its manifest says.
pub struct Checkpoint {
    dir: PathBuf,
    manifest: Manifest,
    state: RunState,
}

impl Checkpoint {
    /// Opens the checkpoint of `path` (see [`find`]) and compares every file with its digest, once: what is read later is not hashed again.
    ///
    /// # Errors
    /// No checkpoint, or one that is damaged: the text names the file, the hint a whole checkpoint of the run.
    pub fn open(path: &Path) -> Result<Self> {
        let dir = find(path)?;
        let manifest = Manifest::verify(&dir)?;
        let state = RunState::read(&dir, manifest.written_in)?;
        Ok(Self { dir, manifest, state })
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where the run was.
    pub fn state(&self) -> &RunState {
        &self.state
    }

    /// File with the resolved configuration of the run that wrote it.
    pub(crate) fn config(&self) -> PathBuf {
        self.dir.join(CONFIG)
    }

    /// The configuration of the run that wrote it, as YAML.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn config_yaml(&self) -> Result<String> {
        let path = self.config();
        read_text(&path).map_err(TrainError::io("read", &path))
    }

    /// The file with the parameters that it exports: their averages, from the first update of the averages on.
    fn exported(&self) -> &'static str {
        if self.has_averages() { EMA } else { MODEL }
    }

    /// Whether it has averages. Formats before 3 have the file from the beginning, with the first weights until the first update.
    fn has_averages(&self) -> bool {
        self.state.num_ema_updates > 0 && self.manifest.files.contains_key(EMA)
    }

    /// Digest of the file with the parameters that it exports.
    pub fn exported_digest(&self) -> Option<&FileDigest> {
        self.manifest.files.get(self.exported())
    }

    /// The weights that it exports: parameters, averaged from the first update of the averages on, and buffers. Its score is theirs.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn weights(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut weights: BTreeMap<String, Tensor> = read(&self.dir.join(MODEL))?.into_iter().collect();
        if self.has_averages() {
            weights.extend(read(&self.dir.join(EMA))?);
        }
        Ok(weights)
    }

    /// Overwrites the model's parameters and buffers.
    pub(crate) fn load_model(&self, target: &[(String, Tensor)]) -> Result<()> {
        load(&self.dir.join(MODEL), target)
    }

    /// Overwrites the optimizer's moments and steps.
    pub(crate) fn load_optimizer(&self, target: &[(String, Tensor)]) -> Result<()> {
        load(&self.dir.join(OPTIMIZER), target)
    }

    /// Overwrites the averaged weights, where it has them.
    pub(crate) fn load_ema(&self, target: &[(String, Tensor)]) -> Result<()> {
        if self.has_averages() { load(&self.dir.join(EMA), target) } else { Ok(()) }
    }
}

/// The weights of `path`: of a checkpoint folder, of a run directory (its newest checkpoint), or of a safetensors file.
///
/// # Errors
/// No checkpoint, a damaged one, or a file that cannot be read.
pub fn read_weights(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    if path.is_file() {
        return Ok(read(path)?.into_iter().collect());
    }
    Checkpoint::open(path)?.weights()
}

/// Overwrites `target` (parameters and buffers by name) with [`read_weights`] of `path`.
///
/// # Errors
/// As [`read_weights`]; a name that only one side has, or another shape or number format: nothing is written then.
pub fn load_weights(path: &Path, target: &[(String, Tensor)]) -> Result<()> {
    let source: Vec<(String, Tensor)> = read_weights(path)?.into_iter().collect();
    hlrp_torch::load_strict(target, &source).map_err(|source| TrainError::Weights { path: path.to_path_buf(), source })
}

fn load(path: &Path, target: &[(String, Tensor)]) -> Result<()> {
    inspect(path, max_bytes(target)).map_err(TrainError::io("read", path))?;
    hlrp_torch::load_strict(target, &read(path)?)
        .map_err(|source| TrainError::Weights { path: path.to_path_buf(), source })
}

/// The most that a file of these tensors has.
fn max_bytes(tensors: &[(String, Tensor)]) -> u64 {
    /// A name, a shape and two offsets.
    const HEADER_BYTES: usize = 1 << 10;
    let bytes = |tensor: &Tensor| tensor.numel() * tensor.kind().elt_size_in_bytes();
    tensors.iter().map(|(name, tensor)| (bytes(tensor) + name.len() + HEADER_BYTES) as u64).sum::<u64>()
        + HEADER_BYTES as u64
}

fn read(path: &Path) -> Result<Vec<(String, Tensor)>> {
    inspect(path, MAX_WEIGHT_BYTES).map_err(TrainError::io("read", path))?;
    Tensor::read_safetensors(path)
        .map_err(|error| TrainError::Malformed { path: path.to_path_buf(), reason: error.to_string() })
}
