//! Predicts the difference between the frames: frame t+k minus frame t, in units of its root mean square.
//!
//! Nothing of frame t has to be drawn again, so that all of the loss is about what changed.

use super::motion::squared_error;
use super::pixel::ToPixels;
use super::running_square::RunningSquare;
use super::{Decoder, DecoderInput, PixelWeights, Registration, Target};
use hlrp_nn::Pass;
use hlrp_torch::{TorchError, World};
use hlrp_track::metrics::MetricSpec;
use tch::Tensor;

/// Where its network, its last layer and its unit are.
const SCOPES: [&str; 3] = ["difference_decoder", "difference_to_pixels", "difference_unit"];
/// Smallest unit, for data without any motion.
const MIN_UNIT: f64 = 1e-4;

pub(super) const REGISTRATION: Registration = Registration {
    scopes: &SCOPES,
    config: |decoders| Some(decoders.difference.as_ref()?.shared()),
    build: |context, shared| {
        let [network, head, unit] = SCOPES;
        Box::new(DifferenceDecoder {
            to_pixels: ToPixels::new(context, [network, head], shared.depth),
            mean_square: RunningSquare::new(&context.root.child(unit), MIN_UNIT),
        })
    },
};

struct DifferenceDecoder {
    to_pixels: ToPixels,
    /// Of the differences in training.
    mean_square: RunningSquare,
}

impl Decoder for DifferenceDecoder {
    fn name(&self) -> &'static str {
        "difference"
    }

    fn metric(&self) -> &'static str {
        "difference_loss"
    }

    fn metrics(&self) -> Vec<MetricSpec> {
        vec![
            MetricSpec::detail("train/difference_loss"),
            MetricSpec::new("val/difference_loss", "validation loss of the difference").lower_is_better(),
        ]
    }

    /// `[B,C,H,W]` in units of the root mean square.
    fn predict(&self, input: &DecoderInput<'_>, pass: &Pass<'_>) -> Tensor {
        self.to_pixels.forward(input, pass)
    }

    fn observe(&self, target: &Target, world: &World) -> Result<(), TorchError> {
        self.mean_square.update(&(target.later_frame() - target.earlier_frame()), world)
    }

    fn loss(
        &self,
        prediction: &Tensor,
        target: &Target,
        weights: Option<&PixelWeights<'_>>,
    ) -> Result<Option<Tensor>, TorchError> {
        let difference_BCHW = (target.later_frame() - target.earlier_frame()) / self.mean_square.root();
        squared_error(prediction, &difference_BCHW, weights).map(Some)
    }

    fn reads_patches(&self) -> bool {
        true
    }

    fn no_change(&self, target: &Target) -> Tensor {
        target.earlier_frame().zeros_like()
    }

    fn frame(&self, prediction: &Tensor, frame_BCHW: &Tensor) -> Option<Tensor> {
        Some(frame_BCHW + prediction * self.mean_square.root())
    }

    fn image(&self, prediction: &Tensor, frame_BCHW: &Tensor) -> Option<(&'static str, Tensor)> {
        Some(("frame t + difference", self.frame(prediction, frame_BCHW)?))
    }
}
