//! Decoded frames to RGB planes of the wanted size.

use super::color::YuvToRgb;
use crate::{
    FrameSize,
    resize::{Resizer, split_planes},
};
use ffmpeg_next::{
    format::Pixel,
    frame,
    software::scaling::{Context, Flags},
};
use std::path::Path;

/// Converts and resizes frames; keeps its buffers from one to the next.
#[derive(Default)]
pub(crate) struct FrameConverter {
    yuv: YuvToRgb,
    /// `swscale`, for pixel formats that [`YuvToRgb`] does not convert.
    scaler: Option<Context>,
    rgb: Option<frame::Video>,
    resizer: Resizer,
    planes_CHW: Vec<u8>,
}

impl FrameConverter {
    /// Writes a frame as `uint8 [3,H,W]` of `size`. `path` names the file that it comes from.
    ///
    /// # Errors
    /// Why it cannot be converted.
    pub(crate) fn convert(
        &mut self,
        path: &Path,
        frame: &frame::Video,
        size: FrameSize,
        out_CHW: &mut [u8],
    ) -> Result<(), String> {
        let native = FrameSize { height: frame.height() as usize, width: frame.width() as usize };
        if native == size {
            return self.native(frame, out_CHW);
        }
        let mut planes_CHW = std::mem::take(&mut self.planes_CHW);
        planes_CHW.resize(native.frame_bytes(), 0);
        let done = self.native(frame, &mut planes_CHW).and_then(|()| {
            self.resizer.resize(path, native, &planes_CHW, size, out_CHW).map_err(|error| error.to_string())
        });
        self.planes_CHW = planes_CHW;
        done
    }

    /// RGB planes at the frame's own size.
    fn native(&mut self, frame: &frame::Video, out_CHW: &mut [u8]) -> Result<(), String> {
        if YuvToRgb::supports(frame.format()) {
            self.yuv.convert(frame, out_CHW);
            return Ok(());
        }
        let (format, width, height) = (frame.format(), frame.width(), frame.height());
        let fits = |context: &Context| {
            let input = context.input();
            (input.format, input.width, input.height) == (format, width, height)
        };
        if !self.scaler.as_ref().is_some_and(fits) {
            let scaler = Context::get(format, width, height, Pixel::RGB24, width, height, Flags::BILINEAR);
            self.scaler =
                Some(scaler.map_err(|error| format!("pictures of format {format:?} cannot be converted ({error})"))?);
            self.rgb = None;
        }
        let rgb = self.rgb.get_or_insert_with(frame::Video::empty);
        if let Some(scaler) = &mut self.scaler {
            scaler.run(frame, rgb).map_err(|error| error.to_string())?;
        }
        let row_len = 3 * width as usize;
        let mut pixels_HWC = Vec::with_capacity(row_len * height as usize);
        for y in 0..height as usize {
            pixels_HWC.extend_from_slice(&rgb.data(0)[y * rgb.stride(0)..][..row_len]);
        }
        split_planes(&pixels_HWC, out_CHW);
        Ok(())
    }
}
