//! Frames in another size, on their device.

use tch::{Kind, Tensor, no_grad};

/// `uint8 [B,T,C,H,W]` to `uint8 [B,T,C,height,width]`, as the data loader does it ([`hlrp_data::PREPROCESS_ID`]): bilinear, antialiased,
/// rounded. Tensors of another rank stay as they are.
pub fn resize_frames(frames_BTCHW: &Tensor, size: [i64; 2]) -> Tensor {
    let &[num_samples, num_frames, num_channels, height, width] = frames_BTCHW.size().as_slice() else {
        return frames_BTCHW.shallow_clone();
    };
    if [height, width] == size {
        return frames_BTCHW.shallow_clone();
    }
    no_grad(|| {
        let frames_FCHW = frames_BTCHW.flatten(0, 1).to_kind(Kind::Float);
        let resized_FCHW = frames_FCHW.internal_upsample_bilinear2d_aa(size, false, None, None);
        let resized_FCHW = resized_FCHW.round().clamp(0.0, 255.0).to_kind(Kind::Uint8);
        resized_FCHW.view([num_samples, num_frames, num_channels, size[0], size[1]])
    })
}
