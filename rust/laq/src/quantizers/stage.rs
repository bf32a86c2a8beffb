//! What surrounds every quantizer: the scale of the changes, a start without quantization, and codes that start where
//! the changes are.
//!
//! Shape suffixes: B samples, S code slots, N vectors, K codes, Q width of a code vector.

use super::normalize::ChangeNorm;
use super::usage::{count_codes_by_slot, perplexity};
use super::{Codes, Latent, Quantizer, Scale, TrainContext, TrainPass, method, signal_to_noise};
use crate::dims::Dims;
use hlrp_nn::Scope;
use hlrp_schema::QuantizerConfig;
use hlrp_torch::TorchError;
use hlrp_track::metrics::MetricSpec;
use hlrp_train::RowReset;
use tch::{Device, Kind, Tensor, no_grad};

/// Fewest changes that k-means may see, and how many it may see for each code: the last ones before the codes start.
const MIN_KMEANS_SAMPLES: i64 = 512;
const KMEANS_SAMPLES_PER_CODE: i64 = 4;

/// A quantizer of normalised changes.
pub struct QuantizerStage {
    norm: ChangeNorm,
    quantizer: Box<dyn Quantizer>,
    unquantized_steps: u64,
    recent: Option<RecentChanges>,
}

impl QuantizerStage {
    /// That of a checked configuration, with fresh weights in `scope`.
    pub(crate) fn new(scope: &Scope<'_>, dims: &Dims, config: &QuantizerConfig) -> Self {
        Self {
            quantizer: method(scope, dims, config),
            norm: ChangeNorm::new(scope, dims, config),
            unquantized_steps: config.unquantized_steps,
            recent: config.kmeans_start.then(|| RecentChanges::new(scope, dims)),
        }
    }

    /// One training pass over changes `[B,S,Q]`: [`Quantizer::train_pass`] of the normalised changes, or those
    /// themselves in the steps without quantization.
    ///
    /// # Errors
    /// Another process is gone.
    pub fn train_pass(&mut self, change_BSQ: &Tensor, context: &mut TrainContext<'_>) -> Result<TrainPass, TorchError> {
        let change_BSQ = self.norm.train(change_BSQ, context.world)?;
        let is_unquantized = context.step != 0 && context.step <= self.unquantized_steps;
        let row_resets = self.start_codes(&change_BSQ, context)?;
        if is_unquantized {
            let latent = Latent { vectors_BSQ: change_BSQ, ids_BS: None };
            return Ok(TrainPass { latent, loss: None, metrics: Vec::new(), row_resets });
        }
        let mut result = self.quantizer.train_pass(&change_BSQ, context)?;
        if let (Some(codes), Some(ids_BS)) = (self.codes(), &result.latent.ids_BS) {
            let by_slot_SK = count_codes_by_slot(ids_BS, codes.num_codes());
            context.world.all_reduce(&by_slot_SK)?;
            let worst = perplexity(&by_slot_SK).min();
            result.metrics.push(("slot_perplexity_min", worst));
            let ratio = signal_to_noise::of_batch(&change_BSQ, &result.latent.vectors_BSQ, context.world)?;
            result.metrics.push(("latent_signal_to_noise", ratio));
        }
        result.row_resets.extend(row_resets);
        Ok(result)
    }

    /// Whether training pass `step` does the same work as every other one for which this holds.
    pub(crate) fn repeats(&self, step: u64) -> bool {
        step > self.unquantized_steps + 1 && !self.quantizer.is_scheduled(step)
    }

    /// Remembers changes before the first quantized step, and sets the codes by them at that step, whose
    /// further micro-batches do neither.
    fn start_codes(
        &mut self,
        change_BSQ: &Tensor,
        context: &mut TrainContext<'_>,
    ) -> Result<Vec<RowReset>, TorchError> {
        let first = self.unquantized_steps + 1;
        let Some(recent) = self.recent.as_mut().filter(|_| (1..=first).contains(&context.step)) else {
            return Ok(Vec::new());
        };
        if recent.is_used {
            return Ok(Vec::new());
        }
        recent.add(&context.world.all_gather_rows(&change_BSQ.detach())?.flatten(0, 1));
        if context.step < first {
            return Ok(Vec::new());
        }
        recent.is_used = true;
        let samples_NQ = recent.all();
        let (num_samples, num_codes) = (samples_NQ.size()[0], self.codes().map_or(0, Codes::num_codes));
        if num_samples < num_codes && context.world.is_main() {
            tracing::warn!(
                "k-means sets {num_codes} codes by {num_samples} changes: some codes are the same\n\
                 hint: raise model.quantizer.unquantized_steps"
            );
        }
        self.quantizer.start_codes(&samples_NQ, context)
    }

    /// Latent actions of changes `[B,S,Q]` in evaluation: no noise, no change of state.
    pub fn quantize(&self, change_BSQ: &Tensor) -> Latent {
        self.quantizer.quantize(&self.norm.evaluate(change_BSQ))
    }

    /// What is quantized in evaluation: changes `[B,S,Q]`, normalised.
    pub fn normalised(&self, change_BSQ: &Tensor) -> Tensor {
        self.norm.evaluate(change_BSQ)
    }

    /// Those of the training's metrics that are drawn.
    pub fn metrics(&self) -> Vec<MetricSpec> {
        self.quantizer.metrics()
    }

    /// As [`Quantizer::scale`].
    pub fn scale(&self) -> Scale {
        self.quantizer.scale()
    }

    /// As [`Quantizer::codes`].
    pub fn codes(&self) -> Option<&dyn Codes> {
        self.quantizer.codes()
    }
}

/// The last changes of training, saved in every checkpoint.
struct RecentChanges {
    /// `float32 [N,Q]`, the newest last.
    samples_NQ: Tensor,
    /// `int64` scalar: how many of them are changes.
    num_samples: Tensor,
    /// Whether the codes were set by them.
    is_used: bool,
}

impl RecentChanges {
    fn new(scope: &Scope<'_>, dims: &Dims) -> Self {
        let num_samples = (KMEANS_SAMPLES_PER_CODE * dims.codebook_size).max(MIN_KMEANS_SAMPLES);
        let zeros = |shape: &[i64], kind| Tensor::zeros(shape, (kind, Device::Cpu));
        let scope = scope.child("recent_changes");
        Self {
            samples_NQ: scope.buffer("samples", &zeros(&[num_samples, dims.code_dim], Kind::Float)),
            num_samples: scope.buffer("count", &zeros(&[], Kind::Int64)),
            is_used: false,
        }
    }

    fn add(&self, change_NQ: &Tensor) {
        no_grad(|| {
            let (num_new, capacity) = (change_NQ.size()[0], self.samples_NQ.size()[0]);
            let both_NQ = Tensor::cat(&[&self.samples_NQ, change_NQ], 0);
            self.samples_NQ.shallow_clone().copy_(&both_NQ.narrow(0, num_new, capacity));
            let count = (&self.num_samples + num_new).clamp_max(capacity);
            self.num_samples.shallow_clone().copy_(&count);
        });
    }

    /// `[N,Q]`; waits for the device.
    fn all(&self) -> Tensor {
        let count = self.num_samples.int64_value(&[]);
        self.samples_NQ.narrow(0, self.samples_NQ.size()[0] - count, count)
    }
}
