//! Decoded frames to RGB planes of the wanted size.
//!
//! YUV 4:2:0 is converted bit for bit as FFmpeg's `swscale` converts by default; other pixel formats by `swscale` itself.
//!
//! Formula of libswscale (`yuv2rgb.c`, `x86/yuv_2_rgb.asm`): with all values in 1/8 steps and coefficients in 1/8192,
//! `Y' = (8 Y - y0) cy >> 16`, `R = Y' + ((8 V - 1024) crv >> 16)`, `B = Y' + ((8 U - 1024) cbu >> 16)`,
//! `G = Y' + ((8 U - 1024) cgu >> 16) + ((8 V - 1024) cgv >> 16)`; a chroma sample serves its 2x2 pixels.

use crate::frames::FrameSize;
use crate::resize::{Resizer, split_planes};
use ffmpeg_next::{
    color,
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
                Some(scaler.map_err(|error| format!("frames of format {format:?} cannot be converted ({error})"))?);
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

/// Fixed-point coefficients of one colour space and range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Coefficients {
    y0: i16,
    cy: i16,
    crv: i16,
    cbu: i16,
    cgu: i16,
    cgv: i16,
}

impl Coefficients {
    /// As `sws_setColorspaceDetails` computes them; an unspecified colour space is BT.601.
    fn of(space: color::Space, full_range: bool) -> Self {
        // `ff_yuv2rgb_coeffs`, 1/65536.
        let [crv, cbu, cgu, cgv]: [i64; 4] = match space {
            color::Space::BT709 => [117_489, 138_438, 13_975, 34_925],
            color::Space::FCC => [104_448, 132_798, 24_759, 53_109],
            color::Space::SMPTE240M => [117_579, 136_230, 16_907, 35_559],
            color::Space::BT2020NCL | color::Space::BT2020CL => [110_013, 140_363, 12_277, 42_626],
            _ => [104_597, 132_201, 25_675, 53_279],
        };
        let (cy, y0, scale) = if full_range { (1 << 16, 0, 224) } else { ((255 << 16) / 219, 16 << 16, 255) };
        let round = |value: i64| ((value + (1 << 15)) >> 16).clamp(-0x7fff, 0x7fff) as i16;
        let chroma = |value: i64| round((value * scale / 255) << 13);
        Self {
            y0: round(y0 << 3),
            cy: round(cy << 13),
            crv: chroma(crv),
            cbu: chroma(cbu),
            cgu: chroma(-cgu),
            cgv: chroma(-cgv),
        }
    }
}

/// Rows of chroma terms, one value per pixel, reused from frame to frame.
#[derive(Debug, Default)]
pub(crate) struct YuvToRgb {
    red: Vec<i16>,
    green: Vec<i16>,
    blue: Vec<i16>,
}

impl YuvToRgb {
    /// Whether [`YuvToRgb::convert`] converts this pixel format.
    pub(crate) fn supports(format: Pixel) -> bool {
        matches!(format, Pixel::YUV420P | Pixel::YUVJ420P)
    }

    /// Converts a frame to planes `uint8 [3,H,W]`.
    pub(crate) fn convert(&mut self, frame: &frame::Video, out_CHW: &mut [u8]) {
        let (width, height) = (frame.width() as usize, frame.height() as usize);
        let full_range = frame.format() == Pixel::YUVJ420P || frame.color_range() == color::Range::JPEG;
        let coefficients = Coefficients::of(frame.color_space(), full_range);
        let (red_HW, rest) = out_CHW.split_at_mut(width * height);
        let (green_HW, blue_HW) = rest.split_at_mut(width * height);
        for row in self.rows_mut() {
            row.resize(width.next_multiple_of(2), 0);
        }
        for y in 0..height {
            if y % 2 == 0 {
                let [u, v] = [1, 2].map(|plane| &frame.data(plane)[y / 2 * frame.stride(plane)..][..width.div_ceil(2)]);
                self.chroma_terms(u, v, coefficients);
            }
            let luma = &frame.data(0)[y * frame.stride(0)..][..width];
            let at = y * width..(y + 1) * width;
            add_luma(luma, coefficients, &self.red, &mut red_HW[at.clone()]);
            add_luma(luma, coefficients, &self.green, &mut green_HW[at.clone()]);
            add_luma(luma, coefficients, &self.blue, &mut blue_HW[at]);
        }
    }

    fn rows_mut(&mut self) -> [&mut Vec<i16>; 3] {
        [&mut self.red, &mut self.green, &mut self.blue]
    }

    /// Fills the rows with what chroma adds to each channel.
    fn chroma_terms(&mut self, u: &[u8], v: &[u8], c: Coefficients) {
        let pairs = self.red.chunks_exact_mut(2).zip(self.green.chunks_exact_mut(2)).zip(self.blue.chunks_exact_mut(2));
        for (((red, green), blue), (&u, &v)) in pairs.zip(u.iter().zip(v)) {
            let (u, v) = ((i16::from(u) << 3) - 1024, (i16::from(v) << 3) - 1024);
            red.fill(mul_high(v, c.crv));
            green.fill(mul_high(u, c.cgu) + mul_high(v, c.cgv));
            blue.fill(mul_high(u, c.cbu));
        }
    }
}

fn add_luma(luma: &[u8], c: Coefficients, chroma: &[i16], out: &mut [u8]) {
    for ((out, &y), &chroma) in out.iter_mut().zip(luma).zip(chroma) {
        let y = mul_high((i16::from(y) << 3) - c.y0, c.cy);
        *out = y.saturating_add(chroma).clamp(0, 255) as u8;
    }
}

/// The upper 16 bits of a product, as the `pmulhw` instruction returns them.
fn mul_high(a: i16, b: i16) -> i16 {
    ((i32::from(a) * i32::from(b)) >> 16) as i16
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test may panic
mod tests {
    use super::{Coefficients, YuvToRgb};
    use ffmpeg_next::{
        color,
        format::Pixel,
        frame,
        software::scaling::{Context, Flags},
    };

    /// Every luma and chroma value in some combination, at an odd size.
    #[test]
    fn conversion_equals_swscale_bit_for_bit() {
        let (width, height) = (272, 130);
        let mut frame = frame::Video::new(Pixel::YUV420P, width, height);
        for plane in 0..3 {
            let stride = frame.stride(plane);
            for (at, value) in frame.data_mut(plane).iter_mut().enumerate() {
                *value = ((at % stride) * (3 + 2 * plane) + (at / stride) * (7 + 4 * plane)) as u8;
            }
        }
        let mut scaler =
            Context::get(Pixel::YUV420P, width, height, Pixel::RGB24, width, height, Flags::BILINEAR).unwrap();
        let mut rgb = frame::Video::empty();
        scaler.run(&frame, &mut rgb).unwrap();
        let (width, height) = (width as usize, height as usize);
        let mut planes_CHW = vec![0; 3 * width * height];
        YuvToRgb::default().convert(&frame, &mut planes_CHW);
        for y in 0..height {
            for x in 0..width {
                let theirs = &rgb.data(0)[y * rgb.stride(0) + 3 * x..][..3];
                let ours = [0, 1, 2].map(|c| planes_CHW[(c * height + y) * width + x]);
                assert_eq!(ours, theirs, "pixel ({x}, {y})");
            }
        }
    }

    #[test]
    fn full_range_needs_no_offset() {
        let full = Coefficients::of(color::Space::Unspecified, true);
        assert_eq!((full.y0, full.cy), (0, 8192));
    }
}
