//! Patch features of a frozen DINOv3, pooled to the token grid and projected.

use super::{Encoder, FrameTokens};
use crate::dims::Dims;
use hlrp_nn::dinov3::Dinov3;
use hlrp_nn::{Linear, Pass, Scope};
use hlrp_schema::Dinov3Sizes;
use tch::{Tensor, no_grad};

/// First part of the names of the frozen tensors.
pub(crate) const FROZEN: &str = "dino_feature_extractor";
/// Their scope: they have the names of a published checkpoint below it.
pub(crate) const BACKBONE: &str = "dino_feature_extractor.model";

/// The backbone and a linear map to the width of tokens.
pub(super) struct Dinov3Encoder {
    backbone: Dinov3,
    project: Linear,
    grid: i64,
}

impl Dinov3Encoder {
    pub(super) fn new(root: &Scope<'_>, dims: &Dims, sizes: &Dinov3Sizes) -> Self {
        Self {
            backbone: Dinov3::new(&root.child(BACKBONE), sizes),
            project: Linear::new(&root.child("dino_encoder").child("proj"), sizes.hidden_size, dims.dim, true),
            grid: dims.grid,
        }
    }
}

impl Encoder for Dinov3Encoder {
    /// All frames in one call of the backbone, which has no gradient.
    fn tokens(&self, frames_BTCHW: &Tensor, pass: &Pass<'_>) -> FrameTokens {
        let size = frames_BTCHW.size();
        let features_BTHWC = no_grad(|| {
            let images_FCHW = self.backbone.prepare(&frames_BTCHW.flatten(0, 1));
            let patches_FHWC = self.backbone.patch_features(&images_FCHW);
            if pass.trace.is_some() {
                let by_frame = patches_FHWC.unflatten(0, [size[0], size[1]]);
                for frame in 0..size[1] {
                    pass.record(|| format!("dino.patch_features.frame{frame}"), &by_frame.select(1, frame));
                }
            }
            let pooled_FCHW = patches_FHWC.permute([0, 3, 1, 2]).adaptive_avg_pool2d([self.grid, self.grid]);
            pooled_FCHW.permute([0, 2, 3, 1]).unflatten(0, [size[0], size[1]])
        });
        FrameTokens { tokens_BTHWD: self.project.forward(&features_BTHWC), features_BTHWC: Some(features_BTHWC) }
    }
}
