//! Pixel patches as tokens: no pretrained weights.

use super::{Encoder, FrameTokens};
use crate::dims::Dims;
use crate::patches::patchify;
use hlrp_nn::{LayerNorm, Linear, Pass, Scope};
use tch::Tensor;

/// Patches to tokens: norm, linear map, norm.
///
/// Named `1`, `2` and `3` after their index in the reference `nn.Sequential` (0 is the patch rearrange).
pub(crate) struct PatchTokens {
    norm_in: LayerNorm,
    project: Linear,
    norm_out: LayerNorm,
    patch_size: i64,
}

impl PatchTokens {
    pub(crate) fn new(scope: &Scope<'_>, dims: &Dims) -> Self {
        Self {
            norm_in: LayerNorm::new(&scope.child(1), dims.patch_dim()),
            project: Linear::new(&scope.child(2), dims.patch_dim(), dims.dim, true),
            norm_out: LayerNorm::new(&scope.child(3), dims.dim),
            patch_size: dims.patch_size,
        }
    }

    /// Float frames `[B,T,C,H,W]` to tokens `[B,T,h,w,D]`.
    pub(crate) fn forward(&self, frames_BTCHW: &Tensor) -> Tensor {
        let patches = patchify(frames_BTCHW, self.patch_size);
        self.norm_out.forward(&self.project.forward(&self.norm_in.forward(&patches)))
    }
}

/// The encoder whose tokens are pixel patches.
pub(super) struct PixelEncoder(PatchTokens);

impl PixelEncoder {
    pub(super) fn new(root: &Scope<'_>, dims: &Dims) -> Self {
        Self(PatchTokens::new(&root.child("pixel_projection"), dims))
    }
}

impl Encoder for PixelEncoder {
    fn tokens(&self, frames_BTCHW: &Tensor, _pass: &Pass<'_>) -> FrameTokens {
        FrameTokens { tokens_BTHWD: self.0.forward(frames_BTCHW), features_BTHWC: None }
    }
}
