//! Predicts the pixels of frame t+k.

use super::motion::squared_error;
use super::network::Network;
use super::{BuildContext, Decoder, DecoderInput, PixelWeights, Registration, Target, pixel_curve};
use crate::patches::unpatchify;
use hlrp_nn::{Linear, Pass};
use hlrp_torch::TorchError;
use hlrp_track::metrics::MetricSpec;
use tch::{Kind, Tensor};

/// Where its network is, and where its last layer is.
const SCOPES: [&str; 2] = ["pixel_decoder", "pixel_to_pixels"];

pub(super) const REGISTRATION: Registration = Registration {
    scopes: &SCOPES,
    config: |decoders| Some(decoders.pixel.as_ref()?.shared()),
    build: |context, shared| Box::new(PixelDecoder(ToPixels::new(context, SCOPES, shared.depth))),
};

/// A network and a linear map from tokens to patches.
pub(super) struct ToPixels {
    name: &'static str,
    network: Network,
    to_pixels: Linear,
    patch_size: i64,
}

impl ToPixels {
    /// With the network under the first name and the linear map under the second.
    pub(super) fn new(context: &BuildContext<'_>, [name, head]: [&'static str; 2], depth: i64) -> Self {
        let dims = context.dims;
        Self {
            name,
            network: context.network(name, depth),
            to_pixels: Linear::new(&context.root.child(head).child(0), dims.dim, dims.patch_dim(), true),
            patch_size: dims.patch_size,
        }
    }

    /// `[B,C,H·p,W·p]` float32, not clamped.
    pub(super) fn forward(&self, input: &DecoderInput<'_>, pass: &Pass<'_>) -> Tensor {
        pass.record(|| "context".into(), input.pixel_canvas_B1HWD);
        let tokens_B1HWD = self.network.forward(input.pixel_canvas_B1HWD, input, pass);
        let patches_BHWP = self.to_pixels.forward(&tokens_B1HWD.squeeze_dim(1)).to_kind(Kind::Float);
        let frame_BCHW = unpatchify(&patches_BHWP, self.patch_size);
        pass.record(|| format!("{}.pixels", self.name), &frame_BCHW);
        frame_BCHW
    }
}

struct PixelDecoder(ToPixels);

impl Decoder for PixelDecoder {
    fn name(&self) -> &'static str {
        "pixel"
    }

    fn metric(&self) -> &'static str {
        "pixel_loss"
    }

    fn metrics(&self) -> Vec<MetricSpec> {
        vec![
            MetricSpec::detail("train/pixel_loss").drawn_in(&pixel_curve()),
            MetricSpec::new("val/pixel_loss", "validation pixel loss").lower_is_better().drawn_in(&pixel_curve()),
        ]
    }

    fn predict(&self, input: &DecoderInput<'_>, pass: &Pass<'_>) -> Tensor {
        self.0.forward(input, pass)
    }

    fn loss(
        &self,
        prediction: &Tensor,
        target: &Target,
        weights: Option<&PixelWeights<'_>>,
    ) -> Result<Option<Tensor>, TorchError> {
        squared_error(prediction, &target.later_frame(), weights).map(Some)
    }

    fn reads_patches(&self) -> bool {
        true
    }

    fn no_change(&self, target: &Target) -> Tensor {
        target.earlier_frame()
    }

    fn image(&self, prediction: &Tensor, _frame_BCHW: &Tensor) -> Option<(&'static str, Tensor)> {
        Some(("prediction", prediction.shallow_clone()))
    }

    fn predicts_frame(&self) -> bool {
        true
    }
}
