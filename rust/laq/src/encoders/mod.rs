//! Encoders: from frames to token grids, one per file.
//!
//! To add one: a file here, a line in [`build`], its keys in `hlrp_schema`'s `laq.rs` and their defaults in
//! `config/model/`.
//!
//! Shape suffixes: B samples, T = 2 frames, C channels, H×W pixels or tokens, D token width.

mod pixel;

pub(crate) use pixel::PatchTokens;

use crate::dims::Dims;
use hlrp_nn::Scope;
use tch::Tensor;

/// From frames to tokens, each frame by itself.
pub trait Encoder: Send {
    /// Float frames `[B,T,C,H,W]` in [0, 1] to tokens `[B,T,h,w,D]`.
    fn tokens(&self, frames_BTCHW: &Tensor) -> Tensor;
}

/// The encoder of a model with fresh weights below `root`.
pub(crate) fn build(root: &Scope<'_>, dims: &Dims) -> Box<dyn Encoder> {
    Box::new(pixel::PixelEncoder::new(root, dims))
}
