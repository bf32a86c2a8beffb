//! Predicts the encoder's tokens of frame t+k.

use super::{Decoder, DecoderInput, Registration, Target, mean_squared_error};
use hlrp_nn::{Pass, spacetime::SpaceTimeTransformer};
use tch::Tensor;

/// Where its tensors are.
const SCOPE: &str = "dino_decoder";

pub(super) const REGISTRATION: Registration = Registration {
    scopes: &[SCOPE],
    config: |decoders| Some(decoders.token.as_ref()?.shared()),
    build: |context, shared| Box::new(TokenDecoder { transformer: context.transformer(SCOPE, shared.depth) }),
};

struct TokenDecoder {
    transformer: SpaceTimeTransformer,
}

impl Decoder for TokenDecoder {
    fn name(&self) -> &'static str {
        "token"
    }

    /// The name that the field's logs have for this loss.
    fn metric(&self) -> &'static str {
        "dino_loss"
    }

    /// `[B,1,H,W,D]`.
    fn predict(&self, input: &DecoderInput<'_>, pass: &Pass<'_>) -> Tensor {
        self.transformer.forward(input.canvas_B1HWD, Some(input.bias_ANN), Some(input.action_tokens_BSD), pass)
    }

    fn loss(&self, prediction: &Tensor, target: &Target<'_>) -> Tensor {
        mean_squared_error(prediction, &target.tokens_BTHWD.narrow(1, 1, 1))
    }
}
