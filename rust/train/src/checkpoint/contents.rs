//! What goes into a checkpoint.

use super::{RunState, Score};
use crate::DecayGroup;
use hlrp_schema::TaskDescription;
use tch::Tensor;

/// Facts about the process that writes.
pub(crate) struct About {
    pub(crate) device: String,
    pub(crate) num_threads: usize,
    pub(crate) precision: String,
    pub(crate) optimizer_groups: [DecayGroup; 2],
    /// [`crate::Task::description`].
    pub(crate) task: TaskDescription,
}

/// Everything that a checkpoint holds.
pub(crate) struct Contents {
    /// Parameters and buffers.
    pub(crate) model: Vec<(String, Tensor)>,
    pub(crate) optimizer: Vec<(String, Tensor)>,
    pub(crate) ema: Option<Vec<(String, Tensor)>>,
    pub(crate) state: RunState,
    pub(crate) config_yaml: String,
    pub(crate) score: Option<Score>,
    pub(crate) about: About,
}

impl Contents {
    /// Bytes on the disk, with room for the small files.
    pub(crate) fn num_bytes(&self) -> u64 {
        const SMALL_FILES: u64 = 1 << 20;
        let tensors = self.model.iter().chain(&self.optimizer).chain(self.ema.iter().flatten());
        SMALL_FILES
            + tensors.map(|(_, tensor)| (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64).sum::<u64>()
    }
}
