//! Frames to patch vectors, and back.

use tch::{Kind, Tensor};

/// `uint8` pixels to float32 in [0, 1].
pub fn unit_frames(pixels_u8: &Tensor) -> Tensor {
    pixels_u8.to_kind(Kind::Float) / 255.0
}

/// Frames `[B,T,C,H·p,W·p]` to patch vectors `[B,T,H,W,C·p·p]`, ordered by channel, row, column.
pub fn patchify(frames: &Tensor, patch_size: i64) -> Tensor {
    let size = frames.size();
    let (h, w) = (size[3] / patch_size, size[4] / patch_size);
    frames.reshape([size[0], size[1], size[2], h, patch_size, w, patch_size]).permute([0, 1, 3, 5, 2, 4, 6]).reshape([
        size[0],
        size[1],
        h,
        w,
        size[2] * patch_size * patch_size,
    ])
}

/// Patch vectors `[B,H,W,C·p·p]` to a frame `[B,C,H·p,W·p]`: the inverse of [`patchify`] for one frame.
pub fn unpatchify(patches: &Tensor, patch_size: i64) -> Tensor {
    let size = patches.size();
    let (h, w, channels) = (size[1], size[2], size[3] / (patch_size * patch_size));
    patches.reshape([size[0], h, w, channels, patch_size, patch_size]).permute([0, 3, 1, 4, 2, 5]).reshape([
        size[0],
        channels,
        h * patch_size,
        w * patch_size,
    ])
}
