//! Convolutions over frame t and the difference to it: small, fast, and for tasks in which little moves.
//!
//! A frame's input is frame t beside its own difference to frame t. For frame t that difference is 0, so that its tokens
//! depend on frame t alone, and the change between the tokens of the two frames is 0 where nothing moves.

use super::{Encoder, FrameTokens};
use crate::dims::Dims;
use hlrp_nn::{Conv2d, LayerNorm, Pass, Scope};
use hlrp_schema::ConvEncoderConfig;
use tch::{Kind, Tensor};

/// Brings differences between frames, which are small, to the range of pixels.
const DIFFERENCE_GAIN: f64 = 10.0;
/// Subtracted from pixels in [0, 1].
const MEAN_PIXEL: f64 = 0.5;

/// Layers that each halve the image, with ReLU between them, and a norm.
pub(super) struct ConvEncoder {
    convs: Vec<Conv2d>,
    norm: LayerNorm,
}

impl ConvEncoder {
    /// As many layers as it takes to make one token of a patch.
    pub(super) fn new(root: &Scope<'_>, dims: &Dims, config: &ConvEncoderConfig) -> Self {
        let scope = root.child("conv_encoder");
        let num_layers = dims.patch_size.ilog2() as usize;
        let out_dim = |layer: usize| match layer + 1 == num_layers {
            true => dims.dim,
            false => (config.width << layer).min(dims.dim),
        };
        let in_dim = |layer: usize| if layer == 0 { 2 * dims.channels } else { out_dim(layer - 1) };
        let conv =
            |layer| Conv2d::new(&scope.child("convs").child(layer), [in_dim(layer), out_dim(layer)], [3, 3], 2, [1, 1]);
        Self { convs: (0..num_layers).map(conv).collect(), norm: LayerNorm::new(&scope.child("norm_out"), dims.dim) }
    }
}

impl Encoder for ConvEncoder {
    fn tokens(&self, frames_BTCHW: &Tensor, _pass: &Pass<'_>) -> FrameTokens {
        let size = frames_BTCHW.size();
        let first_B1CHW = frames_BTCHW.narrow(1, 0, 1);
        let difference_BTCHW = (frames_BTCHW - &first_B1CHW) * DIFFERENCE_GAIN;
        let pixels_BTCHW = (first_B1CHW - MEAN_PIXEL).expand_as(&difference_BTCHW);
        let mut x_FCHW = Tensor::cat(&[pixels_BTCHW, difference_BTCHW], 2).flatten(0, 1).to_kind(Kind::Float);
        for (layer, conv) in self.convs.iter().enumerate() {
            if layer > 0 {
                x_FCHW = x_FCHW.relu();
            }
            x_FCHW = conv.forward(&x_FCHW);
        }
        let tokens_BTHWD = self.norm.forward(&x_FCHW.permute([0, 2, 3, 1]).unflatten(0, [size[0], size[1]]));
        FrameTokens { tokens_BTHWD, features_BTHWC: None }
    }
}
