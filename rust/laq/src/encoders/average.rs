//! A running average of an encoder that is trained: its features are the targets of a forward model, as LAOM's are.
//!
//! Shape suffixes: B samples, T frames, C channels, H×W pixels or tokens, D token width.

use super::build;
use crate::dims::Dims;
use crate::encoders::Encoder;
use crate::views::tokens_by_view;
use hlrp_nn::{Pass, Scope};
use hlrp_schema::EncoderConfig;
use hlrp_torch::{TorchError, lerp};
use std::collections::HashMap;
use tch::{Kind, Tensor, no_grad};

/// An encoder whose weights follow those of another, without gradient. They are in every checkpoint.
pub(crate) struct AverageEncoder {
    encoder: Box<dyn Encoder>,
    num_views: i64,
    weights: Vec<Tensor>,
    /// The trained weights that they follow.
    trained: Vec<Tensor>,
    decay: f64,
    /// The optimizer step that updated last: its further micro-batches have the same weights.
    updated_at: Option<u64>,
}

impl AverageEncoder {
    /// First part of the names of its tensors.
    pub(crate) const SCOPE: &'static str = "average_encoder";

    /// A copy of the encoder whose tensors are below `root`; `decay` is the fraction of the old average at an update.
    pub(crate) fn new(root: &Scope<'_>, dims: &Dims, config: &EncoderConfig, decay: f64) -> Self {
        let scope = root.child(Self::SCOPE);
        let encoder = build(&scope, dims, config);
        let of_trained: HashMap<String, Tensor> = root.state().into_iter().collect();
        let own = scope.state();
        let trained: Vec<Tensor> = own.iter().map(|(name, _)| of_trained[name].shallow_clone()).collect();
        let weights: Vec<Tensor> = own.into_iter().map(|(_, tensor)| tensor).collect();
        no_grad(|| weights.iter().zip(&trained).for_each(|(own, trained)| own.shallow_clone().copy_(trained)));
        Self { encoder, num_views: dims.num_views, weights, trained, decay, updated_at: None }
    }

    /// Moves towards the trained weights at the first micro-batch of optimizer step `step`, without waiting for the device.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub(crate) fn update(&mut self, step: u64) -> Result<(), TorchError> {
        if self.updated_at.replace(step) == Some(step) {
            return Ok(());
        }
        no_grad(|| lerp(&self.weights, &self.trained, 1.0 - self.decay))
    }

    /// Features `[B,T,H,W,D]`, float32 without gradient, of frames `[B,T,C,H,W]`, each by itself.
    pub(crate) fn features(&self, frames_BTCHW: &Tensor) -> Tensor {
        let size = frames_BTCHW.size();
        no_grad(|| {
            let frames_F1CHW = frames_BTCHW.flatten(0, 1).unsqueeze(1);
            let tokens = tokens_by_view(self.encoder.as_ref(), &frames_F1CHW, self.num_views, &Pass::plain(false));
            tokens.tokens_BTHWD.squeeze_dim(1).unflatten(0, [size[0], size[1]]).to_kind(Kind::Float)
        })
    }
}
