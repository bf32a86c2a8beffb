//! Predicts the pixels of frame t+k for people to look at. It has a canvas and a position bias of its own, so that no
//! gradient leaves it.

use super::motion::squared_error;
use super::pixel::ToPixels;
use super::{Decoder, DecoderInput, PixelWeights, Registration, Target};
use crate::encoders::PatchTokens;
use hlrp_nn::{Pass, spacetime::ContinuousPositionBias};
use hlrp_schema::DecoderNetwork;
use hlrp_torch::TorchError;
use tch::Tensor;

/// Where its canvas, its position bias, its network and its last layer are.
const SCOPES: [&str; 4] = ["aux_context_projection", "aux_rel_pos_bias", "aux_decoder", "aux_to_pixels"];

pub(super) const REGISTRATION: Registration = Registration {
    scopes: &SCOPES,
    config: |decoders| Some(decoders.aux.as_ref()?.shared()),
    build: |context, shared| {
        let [canvas, position_bias, network, head] = SCOPES;
        let (dims, heads) = (context.dims, context.config.heads);
        let bias_scope = context.root.child(position_bias);
        Box::new(AuxDecoder {
            canvas: (!shared.from_latent_only).then(|| PatchTokens::new(&context.root.child(canvas), dims)),
            position_bias: (context.config.decoder_network == DecoderNetwork::Transformer)
                .then(|| ContinuousPositionBias::new(&bias_scope, dims.dim, heads, dims.grid, dims.grid_columns())),
            to_pixels: ToPixels::new(context, [network, head], shared.depth),
        })
    },
};

struct AuxDecoder {
    /// None where it does not see frame t.
    canvas: Option<PatchTokens>,
    /// Of a transformer.
    position_bias: Option<ContinuousPositionBias>,
    to_pixels: ToPixels,
}

impl Decoder for AuxDecoder {
    fn name(&self) -> &'static str {
        "aux"
    }

    fn metric(&self) -> &'static str {
        "aux_loss"
    }

    fn predict(&self, input: &DecoderInput<'_>, pass: &Pass<'_>) -> Tensor {
        let canvas_B1HWD = self.canvas.as_ref().map(|canvas| canvas.forward(input.frame_B1CHW));
        let pixel_canvas_B1HWD = canvas_B1HWD.as_ref().unwrap_or(input.pixel_canvas_B1HWD);
        let bias_ANN = self.position_bias.as_ref().map(ContinuousPositionBias::forward);
        let own = DecoderInput { pixel_canvas_B1HWD, bias_ANN: bias_ANN.as_ref(), ..*input };
        self.to_pixels.forward(&own, pass)
    }

    fn loss(
        &self,
        prediction: &Tensor,
        target: &Target,
        weights: Option<&PixelWeights<'_>>,
    ) -> Result<Option<Tensor>, TorchError> {
        squared_error(prediction, &target.later_frame(), weights).map(Some)
    }

    fn no_change(&self, target: &Target) -> Tensor {
        target.earlier_frame()
    }

    fn image(&self, prediction: &Tensor, _frame_BCHW: &Tensor) -> Option<(&'static str, Tensor)> {
        Some(("aux decoder", prediction.shallow_clone()))
    }

    fn predicts_frame(&self) -> bool {
        true
    }
}
