//! Predicts the difference image, frame t+k minus frame t, weighted by how much of it is motion.

use super::{Decoder, DecoderInput, Registration, Target};
use crate::patches::unpatchify;
use hlrp_nn::spacetime::SpaceTimeTransformer;
use hlrp_nn::{Linear, Pass};
use tch::{Kind, Tensor};

/// Where its transformer is, and where its head is.
const SCOPES: [&str; 2] = ["difference_decoder", "difference_head"];

pub(super) const REGISTRATION: Registration = Registration {
    scopes: &SCOPES,
    config: |decoders| Some(decoders.difference.as_ref()?.shared()),
    build: |context, shared| {
        let ([transformer, head], dims) = (SCOPES, context.dims);
        let own = context.config.decoders.difference.as_ref();
        Box::new(DifferenceDecoder {
            transformer: context.transformer(transformer, shared.depth),
            head: Linear::new(&context.root.child(head), dims.dim, dims.patch_dim(), true),
            patch_size: dims.patch_size,
            motion_weight: own.map_or(0.0, |own| own.motion_weight),
        })
    },
};

struct DifferenceDecoder {
    transformer: SpaceTimeTransformer,
    head: Linear,
    patch_size: i64,
    motion_weight: f64,
}

impl Decoder for DifferenceDecoder {
    fn name(&self) -> &'static str {
        "difference"
    }

    fn metric(&self) -> &'static str {
        "difference_loss"
    }

    /// `[B,C,H,W]` in [−1, 1], not clamped.
    fn predict(&self, input: &DecoderInput<'_>, pass: &Pass<'_>) -> Tensor {
        let action_tokens_BSD = Some(input.action_tokens_BSD);
        let tokens_B1HWD = self.transformer.forward(input.canvas_B1HWD, Some(input.bias_ANN), action_tokens_BSD, pass);
        let patches_BHWP = self.head.forward(&tokens_B1HWD.squeeze_dim(1)).to_kind(Kind::Float);
        unpatchify(&patches_BHWP, self.patch_size)
    }

    /// Squared error with the weight 1 + `motion_weight` · |difference|, over the mean weight.
    fn loss(&self, prediction: &Tensor, target: &Target<'_>) -> Tensor {
        let difference_BCHW = (target.later_frame() - target.frames_BTCHW.select(1, 0)).to_kind(Kind::Float);
        let weight_BCHW = difference_BCHW.abs() * self.motion_weight + 1.0;
        let error_BCHW = (prediction - &difference_BCHW).square();
        (error_BCHW * &weight_BCHW).mean(Kind::Float) / weight_BCHW.mean(Kind::Float)
    }

    /// Grey where nothing changes.
    fn image(&self, prediction: &Tensor) -> Option<(&'static str, Tensor)> {
        Some(("predicted difference", prediction * 0.5 + 0.5))
    }
}
