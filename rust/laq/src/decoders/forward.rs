//! A forward model: predicts the features of the frame one step after frame t from the features of frame t and the codes of a pair that
//! begins there, as LAOM trains its latent actions.
//!
//! The features are those of a frozen backbone, where the encoder has one, else of a running average of the encoder. Each dimension has mean 0
//! and variance 1 over what training saw, so that the loss does not fall when all features shrink: 1 = their mean is predicted. Nothing of the
//! loss reaches the features of frame t.
//!
//! Shape suffixes: B samples, T = 2 frames, H×W tokens, D token width, C width of the features, N = B·H·W.

use super::motion::squared_error;
use super::network::Network;
use super::{Decoder, DecoderInput, PixelWeights, Registration, Target};
use crate::encoders::AverageEncoder;
use crate::moments::RunningMoments;
use hlrp_nn::{Linear, Pass};
use hlrp_torch::{TorchError, World};
use tch::{Kind, Tensor, no_grad};

/// Where its network, its last layer, the scale of its targets and the encoder that makes them are.
const SCOPES: [&str; 4] = ["forward_decoder", "forward_to_features", "forward_features", AverageEncoder::SCOPE];
/// Fraction of the old mean and variance of the features per step.
const DECAY: f64 = 0.99;
/// Keeps a dimension finite that does not vary.
const MIN_VARIANCE: f64 = 1e-8;

pub(super) const REGISTRATION: Registration = Registration {
    scopes: &SCOPES,
    config: |decoders| Some(decoders.forward.as_ref()?.shared()),
    build: |context, shared| {
        let [network, head, features, _] = SCOPES;
        let dims = context.dims;
        let backbone = context.config.encoder.dinov3.as_ref().and_then(|dinov3| dinov3.sizes.as_ref());
        let width = backbone.map_or(dims.dim, |sizes| sizes.hidden_size);
        Box::new(ForwardDecoder {
            network: context.network(network, shared.depth),
            to_features: Linear::new(&context.root.child(head), dims.dim, width, true),
            scale: RunningMoments::new(&context.root.child(features), &[width], DECAY),
        })
    },
};

struct ForwardDecoder {
    network: Network,
    to_features: Linear,
    /// Of the features that it predicts.
    scale: RunningMoments,
}

impl ForwardDecoder {
    /// The features at time index `time`, standardised, `[B,1,H,W,C]`; none for a pair without the frame between.
    fn standardised(&self, target: &Target, time: i64) -> Option<Tensor> {
        let features_B1HWC = target.step_features_BTHWC.as_ref()?.narrow(1, time, 1);
        Some(no_grad(|| (features_B1HWC - self.scale.mean()) / (self.scale.variance() + MIN_VARIANCE).sqrt()))
    }
}

impl Decoder for ForwardDecoder {
    fn name(&self) -> &'static str {
        "forward"
    }

    fn metric(&self) -> &'static str {
        "forward_loss"
    }

    /// `[B,1,H,W,C]` float32, standardised.
    fn predict(&self, input: &DecoderInput<'_>, pass: &Pass<'_>) -> Tensor {
        let tokens_B1HWD = self.network.forward(input.canvas_B1HWD, input, pass);
        self.to_features.forward(&tokens_B1HWD).to_kind(Kind::Float)
    }

    fn observe(&self, target: &Target, world: &World) -> Result<(), TorchError> {
        match &target.step_features_BTHWC {
            Some(features_BTHWC) => self.scale.update(&features_BTHWC.select(1, 1).flatten(0, 2), world),
            None => Ok(()),
        }
    }

    fn loss(
        &self,
        prediction: &Tensor,
        target: &Target,
        weights: Option<&PixelWeights<'_>>,
    ) -> Result<Option<Tensor>, TorchError> {
        let by_channel = |features_B1HWC: &Tensor| features_B1HWC.squeeze_dim(1).permute([0, 3, 1, 2]);
        let Some(truth_B1HWC) = self.standardised(target, 1) else { return Ok(None) };
        squared_error(&by_channel(prediction), &by_channel(&truth_B1HWC), weights).map(Some)
    }

    fn trains_canvas(&self) -> bool {
        false
    }

    /// The features of frame t; zeros for a pair without the frame between, which has no loss.
    fn no_change(&self, target: &Target) -> Tensor {
        self.standardised(target, 0).unwrap_or_else(|| target.tokens_BTHWD.narrow(1, 0, 1).zeros_like())
    }
}
