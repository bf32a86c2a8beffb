//! Image preparation.

use tch::{Kind, Tensor};

/// Id of the preparation of [`pad_resize`] in checkpoints and artifacts.
pub const IMAGE_PREPARATION: &str = "pad-resize-bilinear-left-top/1";

/// Images for the vision tower: `images_BCHW` (uint8, or float in [0, 1]) to float32 `[B,C,height,width]` in [−1, 1].
///
/// Bilinear without antialiasing, half-pixel centres, aspect kept; the padding on the left and on top is black (−1). The arithmetic
/// is that of LeRobot's SmolVLA.
pub fn pad_resize(images_BCHW: &Tensor, height: i64, width: i64) -> Tensor {
    let size = images_BCHW.size();
    let (inner_height, inner_width) = pad_resized_size((size[2], size[3]), (height, width));
    let inner_BChw = squash_resize(images_BCHW, inner_height, inner_width);
    let padded_BCHW = inner_BChw.constant_pad_nd([width - inner_width, 0, height - inner_height, 0]);
    padded_BCHW * 2.0 - 1.0
}

/// Height and width of the image inside the padding: the source divided by the larger of the two ratios, rounded down.
///
/// The division happens twice in double precision, as in LeRobot, which may lose a row against exact arithmetic.
pub fn pad_resized_size(source: (i64, i64), target: (i64, i64)) -> (i64, i64) {
    let ratio = (source.1 as f64 / target.1 as f64).max(source.0 as f64 / target.0 as f64);
    let scaled = |side: i64| ((side as f64 / ratio) as i64).max(1);
    (scaled(source.0), scaled(source.1))
}

/// Images stretched to a size: `images_BCHW` (uint8, or float in [0, 1]) to float32 `[B,C,height,width]` in [0, 1]; bilinear
/// without antialiasing, half-pixel centres.
pub fn squash_resize(images_BCHW: &Tensor, height: i64, width: i64) -> Tensor {
    let unit_BCHW = match images_BCHW.kind() {
        Kind::Uint8 => images_BCHW.to_kind(Kind::Float) / 255.0,
        _ => images_BCHW.to_kind(Kind::Float),
    };
    if unit_BCHW.size()[2..] == [height, width] {
        return unit_BCHW;
    }
    unit_BCHW.upsample_bilinear2d([height, width], false, None, None)
}
