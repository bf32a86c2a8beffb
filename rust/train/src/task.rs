//! What a model offers to the training engine. The engine knows no model; a model knows no loop.

use crate::prefetch::DeviceBatch;
use hlrp_schema::TaskDescription;
use hlrp_torch::World;
use hlrp_track::{
    fs::DiskRules,
    metrics::MetricSpec,
    sinks::{NamedHistogram, NamedImage},
};
use std::{collections::BTreeMap, path::Path};
use tch::Tensor;

/// Result of one forward pass.
pub struct LossOutput {
    /// Scalar that is differentiated.
    pub loss: Tensor,
    /// The masked means that add up to the loss; empty where it is a mean over samples, each of which counts alike.
    pub masked: Vec<MaskedMean>,
    /// Scalars by name, left on the device: the engine fetches them only when it logs.
    pub metrics: Vec<(&'static str, Tensor)>,
}

/// A mean over the supervised values of a batch. Over several micro-batches and processes it becomes the sum over all their supervised
/// values divided by the number of them ([`Task::num_supervised`]).
pub struct MaskedMean {
    /// Its name in [`LossOutput::metrics`].
    pub metric: &'static str,
    /// Scalar, differentiable; 0 where nothing is supervised.
    pub mean: Tensor,
    /// Its factor in the loss.
    pub weight: f64,
}

/// Rows of a parameter that the model rewrote by hand; their optimizer moments are meaningless.
pub struct RowReset {
    /// Name of the parameter.
    pub parameter: String,
    /// `int64 [R]` rewritten rows.
    pub rows: Tensor,
}

/// Result of one validation.
pub struct Validation {
    /// Scalars by full name, such as `val/loss`.
    pub metrics: BTreeMap<String, f64>,
    /// What to look at, such as reconstructions.
    pub images: Vec<NamedImage>,
    /// How things are distributed, such as the codes.
    pub histograms: Vec<NamedHistogram>,
}

/// What a validation may use besides the model.
pub struct ValidationContext<'a> {
    /// Optimizer steps done.
    pub step: u64,
    /// The processes that validate together: each its part of the batches, and all return the metrics of the whole.
    pub world: &'a World,
}

/// Where and when weights are exported.
pub struct ExportContext<'a> {
    /// Optimizer steps done.
    pub step: u64,
    /// Folder to write; what it held before is replaced.
    pub dir: &'a Path,
    /// What the write must leave free, and what becomes of what it replaces.
    pub disk: &'a DiskRules,
    /// Whether a signal asks the run to stop: the export then fails with [`crate::Stopped`] and is repeated when the run resumes.
    pub is_stopped: &'a dyn Fn() -> bool,
}

/// A model under training: owns its parameters, computes its loss, validates itself.
pub trait Task {
    /// Trainable parameters under stable, unique names, in a stable order.
    fn parameters(&self) -> Vec<(String, Tensor)>;

    /// Tensors that belong to the model's state but are not trained (usage counters, frozen constants); saved with the weights.
    fn buffers(&self) -> Vec<(String, Tensor)>;

    /// Forward pass of micro-batch `batch` in optimizer step `step` (1-based: the step that this gradient will make). With
    /// `training.gradient.accumulate_steps` above 1 it is called that many times with the same `step`. Runs under autocast when the
    /// precision is mixed.
    fn loss(&mut self, batch: &DeviceBatch, step: u64) -> anyhow::Result<LossOutput>;

    /// Numbers of supervised values in a batch, a scalar for each of [`LossOutput::masked`] and in that order; known without a forward
    /// pass. Empty for a loss without masks.
    fn num_supervised(&self, _batch: &DeviceBatch) -> anyhow::Result<Vec<Tensor>> {
        Ok(Vec::new())
    }

    /// Whether a step asks the device for the same work on the same memory as each other step for which this holds, reads nothing but its batch,
    /// and lets the host wait for nothing: such steps may be recorded once and replayed (`training.cuda_graph`), without a call of
    /// [`Task::loss`].
    fn repeats(&self, _step: u64) -> bool {
        false
    }

    /// Rows rewritten since the last call, called after the backward pass of a step. The engine zeroes their optimizer moments and
    /// this step's gradient, which belong to the former rows, and copies the rows into the averaged weights.
    fn take_row_resets(&mut self) -> Vec<RowReset>;

    /// Evaluates on the validation set: every branch at full weight, hard codes, no gradient, no change of state.
    fn validate(
        &mut self,
        batches: &mut dyn Iterator<Item = anyhow::Result<DeviceBatch>>,
        context: &ValidationContext<'_>,
    ) -> anyhow::Result<Validation>;

    /// The metrics of this task: all that a validation returns (`val/…`, which `training.checkpoint.monitor` may name), and those of
    /// the training that are drawn (`train/…`). Tables, plots and summaries take labels from here.
    fn metrics(&self) -> Vec<MetricSpec>;

    /// What is wrong with the model by the metrics of its last validation, and a remedy: one sentence each. The closing table ends with it.
    fn verdict(&self, _validation: &BTreeMap<String, f64>) -> Option<String> {
        None
    }

    /// What a checkpoint says of this task (sizes, pair spacing, preprocessing). A run resumes only from a checkpoint with the same
    /// description.
    fn description(&self) -> TaskDescription;

    /// Writes the input of the next stage: at each best score and at the end, of the weights that were validated. A stage whose
    /// checkpoints are that input writes nothing.
    fn export(&self, _context: &ExportContext<'_>) -> anyhow::Result<()> {
        Ok(())
    }
}
