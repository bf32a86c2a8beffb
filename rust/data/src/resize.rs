//! The one way in which images are resized to the model's size.

use crate::{error::DataError, frames::FrameSize};
use fast_image_resize as fir;
use fir::{
    FilterType, PixelType, ResizeAlg, ResizeOptions,
    images::{Image, ImageRef},
};
use std::path::Path;

/// Names how images are prepared; checkpoints, artifacts and frame caches record it.
///
/// `squash-bilinear-aa-u8-v1`: RGB, uint8, at the recorded size; each channel resized to the model's height and width
/// without keeping the aspect ratio, by the antialiased bilinear (triangle) filter that Pillow's `BILINEAR` is too,
/// rounded to uint8. Images that have the model's size already stay as they are.
pub const PREPROCESS_ID: &str = "squash-bilinear-aa-u8-v1";

/// Resizes images; keeps its buffers from one to the next.
#[derive(Default)]
pub(crate) struct Resizer {
    resizer: fir::Resizer,
}

impl Resizer {
    /// Resizes planes `uint8 [3,H,W]`; copies them when the size is the same.
    ///
    /// # Errors
    /// When a size is zero; `path` names where the image comes from.
    pub(crate) fn resize(
        &mut self,
        path: &Path,
        from: FrameSize,
        from_CHW: &[u8],
        to: FrameSize,
        to_CHW: &mut [u8],
    ) -> Result<(), DataError> {
        if from.height * from.width * to.height * to.width == 0 {
            return Err(DataError::file(path, "an image size is zero", "choose another image size"));
        }
        if from == to {
            to_CHW.copy_from_slice(from_CHW);
            return Ok(());
        }
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
        let planes = from_CHW.chunks_exact(from.height * from.width);
        for (from_HW, to_HW) in planes.zip(to_CHW.chunks_exact_mut(to.height * to.width)) {
            self.plane(from, from_HW, to, to_HW, &options).map_err(|what| {
                let sizes = format!("{}x{} to {}x{}", from.height, from.width, to.height, to.width);
                DataError::file(path, format!("cannot be resized from {sizes} ({what})"), "choose another image size")
            })?;
        }
        Ok(())
    }

    fn plane(
        &mut self,
        from: FrameSize,
        from_HW: &[u8],
        to: FrameSize,
        to_HW: &mut [u8],
        options: &ResizeOptions,
    ) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let source = ImageRef::new(from.width as u32, from.height as u32, from_HW, PixelType::U8);
        let source = source.map_err(|error| text(&error))?;
        let target = Image::from_slice_u8(to.width as u32, to.height as u32, to_HW, PixelType::U8);
        let mut target = target.map_err(|error| text(&error))?;
        self.resizer.resize(&source, &mut target, options).map_err(|error| text(&error))
    }
}

/// Resizes an image, as everything here does ([`PREPROCESS_ID`]): planes `uint8 [3,H,W]` to planes of size `to`.
///
/// # Errors
/// When `from_CHW` is not three planes of size `from`, or a size is zero.
pub fn resize_planes(from: FrameSize, from_CHW: &[u8], to: FrameSize) -> Result<Vec<u8>, DataError> {
    let path = Path::new("image");
    if from_CHW.len() != from.frame_bytes() {
        let what = format!("has {} bytes, not 3x{}x{}", from_CHW.len(), from.height, from.width);
        return Err(DataError::file(path, what, "pass red, green and blue planes"));
    }
    let mut to_CHW = vec![0; to.frame_bytes()];
    Resizer::default().resize(path, from, from_CHW, to, &mut to_CHW)?;
    Ok(to_CHW)
}

/// Splits interleaved RGB (`uint8 [H,W,3]`) into planes (`uint8 [3,H,W]`).
pub(crate) fn split_planes(from_HWC: &[u8], to_CHW: &mut [u8]) {
    let (red_HW, rest) = to_CHW.split_at_mut(from_HWC.len() / 3);
    let (green_HW, blue_HW) = rest.split_at_mut(from_HWC.len() / 3);
    for (((pixel, red), green), blue) in from_HWC.chunks_exact(3).zip(red_HW).zip(green_HW).zip(blue_HW) {
        (*red, *green, *blue) = (pixel[0], pixel[1], pixel[2]);
    }
}
