//! How changes are scaled before they are quantized.
//!
//! The changes of a fresh encoder differ by far less than codes do, so that a quantizer sees one point. With mean 0 and
//! variance 1 they fill the codebook from the first step.
//!
//! Shape suffixes: B samples, S code slots, Q width of a code vector.

use super::in_float32;
use crate::dims::Dims;
use crate::moments::RunningMoments;
use hlrp_nn::Scope;
use hlrp_schema::{Normalization, QuantizerConfig};
use hlrp_torch::{TorchError, World};
use tch::{Device, Kind, Tensor};

/// Keeps a dimension finite that does not vary; well below the variance that the changes of a fresh encoder have.
const MIN_VARIANCE: f64 = 1e-10;

/// One of the normalisations, with its statistics.
pub(super) struct ChangeNorm {
    method: Method,
    device: Device,
}

enum Method {
    None,
    /// Over the dimensions of a vector.
    Layer,
    /// Over the batch: statistics of `[S,Q]`.
    Batch(RunningMoments),
}

impl ChangeNorm {
    /// That of a checked configuration, with its statistics in `scope`.
    pub(super) fn new(scope: &Scope<'_>, dims: &Dims, config: &QuantizerConfig) -> Self {
        let method = match config.normalization {
            Normalization::None => Method::None,
            Normalization::LayerNorm => Method::Layer,
            Normalization::BatchNorm => Method::Batch(RunningMoments::new(
                &scope.child("change_norm"),
                &[dims.code_seq_len, dims.code_dim],
                config.normalization_decay,
            )),
        };
        Self { method, device: scope.device() }
    }

    /// Changes `[B,S,Q]` of a training pass, normalised; updates the statistics. Batch statistics are those of this
    /// process, running ones those of all.
    ///
    /// # Errors
    /// Another process is gone.
    pub(super) fn train(&self, change_BSQ: &Tensor, world: &World) -> Result<Tensor, TorchError> {
        let Method::Batch(running) = &self.method else { return Ok(self.evaluate(change_BSQ)) };
        running.update(change_BSQ, world)?;
        Ok(in_float32(self.device, || {
            let dims = [0].as_slice();
            let centred_BSQ = change_BSQ - change_BSQ.mean_dim(dims, true, Kind::Float);
            let variance_1SQ = centred_BSQ.square().mean_dim(dims, true, Kind::Float);
            centred_BSQ / (variance_1SQ + MIN_VARIANCE).sqrt()
        }))
    }

    /// Changes `[B,S,Q]` in evaluation, normalised.
    pub(super) fn evaluate(&self, change_BSQ: &Tensor) -> Tensor {
        in_float32(self.device, || match &self.method {
            Method::None => change_BSQ.shallow_clone(),
            Method::Layer => {
                let dims = [-1].as_slice();
                let centred_BSQ = change_BSQ - change_BSQ.mean_dim(dims, true, Kind::Float);
                let variance_BS1 = centred_BSQ.square().mean_dim(dims, true, Kind::Float);
                centred_BSQ / (variance_BS1 + MIN_VARIANCE).sqrt()
            }
            Method::Batch(running) => (change_BSQ - running.mean()) / (running.variance() + MIN_VARIANCE).sqrt(),
        })
    }
}
