//! Predicts by how much each pixel becomes brighter or darker, whatever its color.

use super::motion::squared_error;
use super::network::Network;
use super::{Decoder, DecoderInput, PixelWeights, Registration, Target};
use crate::patches::unpatchify;
use hlrp_nn::{Linear, Pass};
use hlrp_torch::TorchError;
use tch::{Kind, Tensor};

/// Where its network is, and where its head is.
const SCOPES: [&str; 2] = ["brightness_decoder", "brightness_head"];

pub(super) const REGISTRATION: Registration = Registration {
    scopes: &SCOPES,
    config: |decoders| Some(decoders.brightness.as_ref()?.shared()),
    build: |context, shared| {
        let ([network, head], dims) = (SCOPES, context.dims);
        let own = context.config.decoders.brightness.as_ref();
        Box::new(BrightnessDecoder {
            network: context.network(network, shared.depth),
            head: Linear::new(&context.root.child(head), dims.dim, dims.patch_size * dims.patch_size, true),
            patch_size: dims.patch_size,
            gain: own.map_or(1.0, |own| own.gain),
        })
    },
};

struct BrightnessDecoder {
    network: Network,
    head: Linear,
    patch_size: i64,
    /// Factor on the change of brightness.
    gain: f64,
}

impl Decoder for BrightnessDecoder {
    fn name(&self) -> &'static str {
        "brightness"
    }

    fn metric(&self) -> &'static str {
        "brightness_loss"
    }

    /// `[B,1,H,W]`, not clamped.
    fn predict(&self, input: &DecoderInput<'_>, pass: &Pass<'_>) -> Tensor {
        let tokens_B1HWD = self.network.forward(input.pixel_canvas_B1HWD, input, pass);
        let patches_BHWP = self.head.forward(&tokens_B1HWD.squeeze_dim(1)).to_kind(Kind::Float);
        unpatchify(&patches_BHWP, self.patch_size)
    }

    fn loss(
        &self,
        prediction: &Tensor,
        target: &Target,
        weights: Option<&PixelWeights<'_>>,
    ) -> Result<Option<Tensor>, TorchError> {
        let change_BCHW = (target.later_frame() - target.earlier_frame()) * self.gain;
        let brighter_B1HW = change_BCHW.mean_dim([1].as_slice(), true, Kind::Float);
        squared_error(prediction, &brighter_B1HW, weights).map(Some)
    }

    fn reads_patches(&self) -> bool {
        true
    }

    fn no_change(&self, target: &Target) -> Tensor {
        target.earlier_frame().narrow(1, 0, 1).zeros_like()
    }
}
