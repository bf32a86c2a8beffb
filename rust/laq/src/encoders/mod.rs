//! Encoders: from frames to token grids, one per file.
//!
//! To add one: a file here, a line in [`build`], its section in `hlrp_schema`'s `laq/encoder.rs` and its defaults in
//! `config/model/encoder/`.
//!
//! Shape suffixes: B samples, T = 2 frames, C channels, H×W pixels or tokens, D token width.

mod average;
mod conv;
pub(crate) mod dinov3;
mod pixel;

pub(crate) use average::AverageEncoder;
pub(crate) use pixel::PatchTokens;

use crate::dims::Dims;
use hlrp_nn::{Pass, Scope};
use hlrp_schema::{EncoderConfig, EncoderMethod};
use tch::Tensor;

/// From frames to tokens. Those of the first frame depend on it alone.
pub trait Encoder: Send {
    /// Of float frames `[B,T,C,H,W]` in [0, 1].
    fn tokens(&self, frames_BTCHW: &Tensor, pass: &Pass<'_>) -> FrameTokens;
}

/// What an encoder makes of frames.
pub struct FrameTokens {
    /// `[B,T,h,w,D]`.
    pub tokens_BTHWD: Tensor,
    /// `[B,T,h,w,C]` features of a frozen backbone, where there is one.
    pub features_BTHWC: Option<Tensor>,
}

/// The encoder of a checked configuration, with fresh weights below `root`.
pub(crate) fn build(root: &Scope<'_>, dims: &Dims, config: &EncoderConfig) -> Box<dyn Encoder> {
    match config.method().expect("a checked configuration has one encoder") {
        EncoderMethod::Pixel => Box::new(pixel::PixelEncoder::new(root, dims)),
        EncoderMethod::Dinov3(dinov3) => {
            let sizes = dinov3.sizes.as_ref().expect("the sizes are resolved before a model is built");
            Box::new(dinov3::Dinov3Encoder::new(root, dims, sizes))
        }
        EncoderMethod::Conv(conv) => Box::new(conv::ConvEncoder::new(root, dims, conv)),
    }
}
