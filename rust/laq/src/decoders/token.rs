//! Predicts the encoder's tokens of frame t+k, or the features of its frozen backbone.

use super::motion::squared_error;
use super::network::Network;
use super::{Decoder, DecoderInput, PixelWeights, Registration, Target};
use hlrp_nn::{Linear, Pass};
use hlrp_schema::TokenTarget;
use hlrp_torch::TorchError;
use tch::{Kind, Tensor};

/// Where its network is, and where its map to features is.
const SCOPES: [&str; 2] = ["dino_decoder", "dino_to_features"];
/// Keeps a feature vector finite that does not vary.
const FEATURE_EPS: f64 = 1e-6;

pub(super) const REGISTRATION: Registration = Registration {
    scopes: &SCOPES,
    config: |decoders| Some(decoders.token.as_ref()?.shared()),
    build: |context, shared| {
        let [network, head] = SCOPES;
        let wants_features =
            context.config.decoders.token.as_ref().is_some_and(|token| token.target == TokenTarget::Backbone);
        let sizes = context.config.encoder.dinov3.as_ref().and_then(|dinov3| dinov3.sizes.as_ref());
        Box::new(TokenDecoder {
            network: context.network(network, shared.depth),
            to_features: sizes
                .filter(|_| wants_features)
                .map(|sizes| Linear::new(&context.root.child(head), context.dims.dim, sizes.hidden_size, true)),
        })
    },
};

struct TokenDecoder {
    network: Network,
    /// To the width of the backbone's features, where those are the target.
    to_features: Option<Linear>,
}

impl TokenDecoder {
    /// The target at time index `time`, `[B,1,H,W,·]`: each feature vector with mean 0 and variance 1.
    fn target(&self, target: &Target, time: i64) -> Tensor {
        match (&self.to_features, &target.features_BTHWC) {
            (Some(_), Some(features_BTHWC)) => {
                let features_B1HWC = features_BTHWC.narrow(1, time, 1).to_kind(Kind::Float);
                let width = features_B1HWC.size()[4];
                features_B1HWC.layer_norm([width], None::<&Tensor>, None::<&Tensor>, FEATURE_EPS, false)
            }
            _ => target.tokens_BTHWD.narrow(1, time, 1),
        }
    }
}

impl Decoder for TokenDecoder {
    fn name(&self) -> &'static str {
        "token"
    }

    /// The name that the field's logs have for this loss.
    fn metric(&self) -> &'static str {
        "dino_loss"
    }

    /// `[B,1,H,W,D]`, or of the width of the backbone's features.
    fn predict(&self, input: &DecoderInput<'_>, pass: &Pass<'_>) -> Tensor {
        let tokens_B1HWD = self.network.forward(input.canvas_B1HWD, input, pass);
        self.to_features.as_ref().map_or(tokens_B1HWD.shallow_clone(), |map| map.forward(&tokens_B1HWD))
    }

    fn loss(
        &self,
        prediction: &Tensor,
        target: &Target,
        weights: Option<&PixelWeights<'_>>,
    ) -> Result<Option<Tensor>, TorchError> {
        let by_channel = |tokens_B1HWD: &Tensor| tokens_B1HWD.squeeze_dim(1).permute([0, 3, 1, 2]);
        squared_error(&by_channel(prediction), &by_channel(&self.target(target, 1)), weights).map(Some)
    }

    fn no_change(&self, target: &Target) -> Tensor {
        self.target(target, 0)
    }
}
