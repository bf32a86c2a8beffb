//! Decoded frames to RGB planes of the wanted size.
//!
//! 8-bit YUV 4:2:0 is converted bit for bit as `swscale` does (`yuv420`). YUV of every other layout and depth is converted by `swscale`
//! to 16-bit 4:4:4, which keeps matrix and range, and from there to RGB by the matrix and range of the stream (`pixels`). (`swscale`'s
//! own conversion to RGB assumes BT.601 in limited range unless it is configured otherwise.)

use super::container::Turn;
use super::pixels::{Layout, Levels, Matrix, unknown_format};
use super::yuv420::YuvToRgb;
use crate::error::FrameFailure;
use crate::frames::FrameSize;
use crate::resize::{Resizer, split_planes};
use ffmpeg_next::{
    frame,
    software::scaling::{Context, Flags},
};
use std::path::Path;

/// Converts and resizes frames; keeps its buffers from one to the next.
#[derive(Default)]
pub(crate) struct FrameConverter {
    yuv: YuvToRgb,
    /// Converts other pixel formats to one that is converted here.
    scaler: Option<Context>,
    scaled: Option<frame::Video>,
    resizer: Resizer,
    planes_CHW: Vec<u8>,
    turned_CHW: Vec<u8>,
}

impl FrameConverter {
    /// Writes a frame as `uint8 [3,H,W]` of `size`, turned for showing. `path` names the file that it comes from.
    ///
    /// # Errors
    /// Why it cannot be converted.
    pub(crate) fn convert(
        &mut self,
        path: &Path,
        frame: &frame::Video,
        turn: Turn,
        size: FrameSize,
        out_CHW: &mut [u8],
    ) -> Result<(), FrameFailure> {
        let coded = FrameSize { height: frame.height() as usize, width: frame.width() as usize };
        if coded == size && turn == Turn::None {
            return self.native(frame, out_CHW);
        }
        let mut planes_CHW = std::mem::take(&mut self.planes_CHW);
        planes_CHW.resize(coded.frame_bytes(), 0);
        let done = self.native(frame, &mut planes_CHW).and_then(|()| {
            let (shown, shown_CHW) = match turn {
                Turn::None => (coded, &planes_CHW),
                turn => (turn_planes(turn, coded, &planes_CHW, &mut self.turned_CHW), &self.turned_CHW),
            };
            if shown == size {
                out_CHW.copy_from_slice(shown_CHW);
                return Ok(());
            }
            let resized = self.resizer.resize(path, shown, shown_CHW, size, out_CHW);
            resized.map_err(|error| FrameFailure { what: error.to_string(), hint: "choose another size" })
        });
        self.planes_CHW = planes_CHW;
        done
    }

    /// RGB planes at the frame's own size.
    fn native(&mut self, frame: &frame::Video, out_CHW: &mut [u8]) -> Result<(), FrameFailure> {
        let layout = Layout::of(frame.format())?;
        if layout == Layout::Yuv420 {
            self.yuv.convert(frame, Matrix::of(frame)?, out_CHW);
            return Ok(());
        }
        let (format, width, height) = (frame.format(), frame.width(), frame.height());
        let fits = |context: &Context| {
            let input = context.input();
            (input.format, input.width, input.height) == (format, width, height)
        };
        if !self.scaler.as_ref().is_some_and(fits) {
            let scaler = Context::get(format, width, height, layout.converted(), width, height, Flags::BICUBIC);
            self.scaler = Some(scaler.map_err(|_| unknown_format(format))?);
            self.scaled = None;
        }
        let scaled = self.scaled.get_or_insert_with(frame::Video::empty);
        if let Some(scaler) = &mut self.scaler {
            scaler.run(frame, scaled).map_err(|_| unknown_format(format))?;
        }
        match layout {
            Layout::Yuv420 => {}
            Layout::Yuv => wide_yuv_to_rgb(scaled, Matrix::of(frame)?, Levels::of(frame), out_CHW),
            Layout::Gray => wide_gray_to_rgb(scaled, Levels::of_gray(frame), out_CHW),
            Layout::Rgb => {
                let row_len = 3 * width as usize;
                let mut pixels_HWC = Vec::with_capacity(row_len * height as usize);
                for y in 0..height as usize {
                    pixels_HWC.extend_from_slice(&scaled.data(0)[y * scaled.stride(0)..][..row_len]);
                }
                split_planes(&pixels_HWC, out_CHW);
            }
        }
        Ok(())
    }
}

/// 16-bit 4:4:4 to planes `uint8 [3,H,W]`.
fn wide_yuv_to_rgb(frame: &frame::Video, Matrix(matrix): Matrix, levels: Levels, out_CHW: &mut [u8]) {
    let (width, height) = (frame.width() as usize, frame.height() as usize);
    let [crv, cbu, cgu, cgv] = matrix.map(|value| value as f32 / 65536.0 * levels.chroma_scale);
    let (red_HW, rest) = out_CHW.split_at_mut(width * height);
    let (green_HW, blue_HW) = rest.split_at_mut(width * height);
    let planes_HW =
        red_HW.chunks_exact_mut(width).zip(green_HW.chunks_exact_mut(width)).zip(blue_HW.chunks_exact_mut(width));
    for (y, ((red, green), blue)) in planes_HW.enumerate() {
        let [luma, u, v] = [0, 1, 2].map(|plane| wide_row(frame, plane, y));
        let pixels = red.iter_mut().zip(green).zip(blue).zip(luma).zip(u.zip(v));
        for ((((red, green), blue), luma), (u, v)) in pixels {
            let luma = (luma - levels.luma_zero) * levels.luma_scale;
            let (u, v) = (u - 32768.0, v - 32768.0);
            *red = to_byte(luma + crv * v);
            *green = to_byte(luma - cgu * u - cgv * v);
            *blue = to_byte(luma + cbu * u);
        }
    }
}

/// 16-bit gray to planes `uint8 [3,H,W]`.
fn wide_gray_to_rgb(frame: &frame::Video, levels: Levels, out_CHW: &mut [u8]) {
    let (width, height) = (frame.width() as usize, frame.height() as usize);
    let (red_HW, others) = out_CHW.split_at_mut(width * height);
    for (y, row) in red_HW.chunks_exact_mut(width).enumerate() {
        let luma = wide_row(frame, 0, y);
        row.iter_mut().zip(luma).for_each(|(out, luma)| *out = to_byte((luma - levels.luma_zero) * levels.luma_scale));
    }
    others.chunks_exact_mut(width * height).for_each(|plane_HW| plane_HW.copy_from_slice(red_HW));
}

/// A row of 16-bit values.
fn wide_row(frame: &frame::Video, plane: usize, y: usize) -> impl Iterator<Item = f32> + '_ {
    let row = &frame.data(plane)[y * frame.stride(plane)..][..2 * frame.width() as usize];
    row.chunks_exact(2).map(|pair| f32::from(u16::from_le_bytes([pair[0], pair[1]])))
}

/// The nearest of 0..=255.
fn to_byte(value: f32) -> u8 {
    (value + 0.5) as u8
}

/// Turns planes `uint8 [3,H,W]` of `size`; returns their size afterwards.
fn turn_planes(turn: Turn, size: FrameSize, planes_CHW: &[u8], out_CHW: &mut Vec<u8>) -> FrameSize {
    let FrameSize { height, width } = size;
    let turned = turn.apply(size);
    out_CHW.resize(planes_CHW.len(), 0);
    for (plane_HW, out_HW) in planes_CHW.chunks_exact(height * width).zip(out_CHW.chunks_exact_mut(height * width)) {
        for (at, out) in out_HW.iter_mut().enumerate() {
            let (y, x) = (at / turned.width, at % turned.width);
            let (from_y, from_x) = match turn {
                Turn::None => (y, x),
                Turn::Clockwise => (height - 1 - x, y),
                Turn::Half => (height - 1 - y, width - 1 - x),
                Turn::Counterclockwise => (x, width - 1 - y),
            };
            *out = plane_HW[from_y * width + from_x];
        }
    }
    turned
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test may panic
mod tests {
    use super::{FrameConverter, Turn, turn_planes};
    use crate::frames::FrameSize;
    use crate::video::pixels::name_of;
    use ffmpeg_next::{color, format::Pixel, frame};

    /// The pixel formats of FFmpeg's decoders of H.264, HEVC, AV1, VP9 and of lossless codecs.
    const FORMATS: [Pixel; 14] = [
        Pixel::YUV420P,
        Pixel::YUV422P,
        Pixel::YUV444P,
        Pixel::YUV440P,
        Pixel::YUV420P10LE,
        Pixel::YUV422P10LE,
        Pixel::YUV444P10LE,
        Pixel::YUV420P12LE,
        Pixel::YUV444P12LE,
        Pixel::YUVJ422P,
        Pixel::YUVJ444P,
        Pixel::GRAY8,
        Pixel::GBRP,
        Pixel::GBRP10LE,
    ];

    /// A frame of one colour, made by the definition of YUV (ITU-R BT.601, BT.709, BT.2020) in floating point.
    fn frame_of(rgb: [f64; 3], format: Pixel, kr_kb: (f64, f64), is_full: bool) -> frame::Video {
        let mut frame = frame::Video::new(format, 16, 16);
        let name = name_of(format);
        let (kr, kb) = kr_kb;
        let [r, g, b] = rgb;
        let luma = kr * r + (1.0 - kr - kb) * g + kb * b;
        let chroma = [(b - luma) / (2.0 - 2.0 * kb), (r - luma) / (2.0 - 2.0 * kr)];
        let depth: u32 = name.trim_end_matches("le").rsplit('p').next().unwrap_or("").parse().unwrap_or(8);
        let (steps, unit) = (f64::from((1 << depth) - 1), f64::from(1 << (depth - 8)));
        let value = |plane: usize| -> f64 {
            match (name, plane) {
                _ if name.starts_with("gbrp") => steps * [g, b, r][plane],
                _ if name.starts_with("gray") && !is_full => unit * (16.0 + 219.0 * luma),
                (_, 0) if is_full || name.starts_with("yuvj") || name.starts_with("gray") => steps * luma,
                (_, 0) => unit * (16.0 + 219.0 * luma),
                _ if is_full || name.starts_with("yuvj") => 128.0 * unit + steps * chroma[plane - 1],
                _ => unit * (128.0 + 224.0 * chroma[plane - 1]),
            }
        };
        for plane in 0..frame.planes() {
            let value = value(plane).round() as u16;
            if depth > 8 {
                frame.data_mut(plane).chunks_exact_mut(2).for_each(|pair| pair.copy_from_slice(&value.to_le_bytes()));
            } else {
                frame.data_mut(plane).fill(value as u8);
            }
        }
        frame
    }

    #[test]
    fn every_pixel_format_matrix_and_range_returns_the_colour_that_was_meant() {
        let spaces = [
            (color::Space::Unspecified, (0.299, 0.114)),
            (color::Space::SMPTE170M, (0.299, 0.114)),
            (color::Space::BT709, (0.2126, 0.0722)),
            (color::Space::BT2020NCL, (0.2627, 0.0593)),
        ];
        for format in FORMATS {
            for (space, kr_kb) in spaces {
                for is_full in [false, true] {
                    for rgb in [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.9, 0.1, 0.2], [0.1, 0.8, 0.3], [0.2, 0.3, 0.9]] {
                        let mut frame = frame_of(rgb, format, kr_kb, is_full);
                        let is_colour = !name_of(format).starts_with("gray");
                        frame.set_color_space(space);
                        frame.set_color_range(if is_full { color::Range::JPEG } else { color::Range::MPEG });
                        let mut out_CHW = vec![0; 3 * 256];
                        FrameConverter::default().native(&frame, &mut out_CHW).unwrap();
                        let luma = kr_kb.0 * rgb[0] + (1.0 - kr_kb.0 - kr_kb.1) * rgb[1] + kr_kb.1 * rgb[2];
                        for (plane, meant) in out_CHW.chunks_exact(256).zip(rgb) {
                            let meant = 255.0 * if is_colour { meant } else { luma };
                            let off = (f64::from(plane[0]) - meant).abs();
                            assert!(
                                off <= 2.0,
                                "{format:?} {space:?} full {is_full} {rgb:?}: {} for {meant}",
                                plane[0]
                            );
                            assert!(plane.iter().all(|value| *value == plane[0]));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_pixel_format_and_a_colour_space_without_a_matrix_are_refused_by_name() {
        let mut out_CHW = vec![0; 3 * 256];
        let mut refused =
            |frame: &frame::Video| FrameConverter::default().native(frame, &mut out_CHW).unwrap_err().what;
        let frame = frame::Video::new(Pixel::PAL8, 16, 16);
        assert_eq!(refused(&frame), "frames of the pixel format pal8 cannot be converted to RGB");
        let frame = frame::Video::new(Pixel::GRAY12LE, 16, 16);
        assert_eq!(refused(&frame), "frames of the pixel format gray12le are depth maps, not colour images");
        let mut frame = frame::Video::new(Pixel::YUV444P, 16, 16);
        frame.set_color_space(color::Space::YCGCO);
        assert_eq!(refused(&frame), "frames of the colour space YCGCO cannot be converted to RGB");
    }

    #[test]
    fn planes_turn_as_a_sheet_of_paper_does() {
        // 1 2 3      4 1
        // 4 5 6  →   5 2   clockwise
        //            6 3
        let size = FrameSize { height: 2, width: 3 };
        let turned = |turn| {
            let mut out = Vec::new();
            let size = turn_planes(turn, size, &[1, 2, 3, 4, 5, 6], &mut out);
            ([size.height, size.width], out)
        };
        assert_eq!(turned(Turn::Clockwise), ([3, 2], vec![4, 1, 5, 2, 6, 3]));
        assert_eq!(turned(Turn::Counterclockwise), ([3, 2], vec![3, 6, 2, 5, 1, 4]));
        assert_eq!(turned(Turn::Half), ([2, 3], vec![6, 5, 4, 3, 2, 1]));
    }
}
