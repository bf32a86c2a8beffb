//! Decoded frames to RGB planes of the wanted size.
//!
//! 8-bit YUV 4:2:0 is converted bit for bit as FFmpeg's `swscale` converts by default (LeRobot's way for most widths). Every other
//! layout and depth is brought to 16-bit 4:4:4 by `swscale`, which keeps matrix and range, and converted from there by the matrix and
//! range of the stream. (`swscale`'s own way to RGB takes BT.601 in limited range unless it is told otherwise.)
//!
//! Formula of libswscale (`yuv2rgb.c`, `x86/yuv_2_rgb.asm`): with all values in 1/8 steps and coefficients in 1/8192,
//! `Y' = (8 Y - y0) cy >> 16`, `R = Y' + ((8 V - 1024) crv >> 16)`, `B = Y' + ((8 U - 1024) cbu >> 16)`,
//! `G = Y' + ((8 U - 1024) cgu >> 16) + ((8 V - 1024) cgv >> 16)`; a chroma sample serves its 2x2 pixels.

use super::container::Turn;
use super::file::Trouble;
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
    /// Brings other pixel formats to one that is converted here.
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
    ) -> Result<(), Trouble> {
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
            resized.map_err(|error| Trouble { what: error.to_string(), hint: "choose another size" })
        });
        self.planes_CHW = planes_CHW;
        done
    }

    /// RGB planes at the frame's own size.
    fn native(&mut self, frame: &frame::Video, out_CHW: &mut [u8]) -> Result<(), Trouble> {
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

/// What the values of a pixel format mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// 8-bit YUV 4:2:0, converted without a step between.
    Yuv420,
    /// YUV of another layout or depth.
    Yuv,
    /// 8-bit gray.
    Gray,
    Rgb,
}

impl Layout {
    fn of(format: Pixel) -> Result<Self, Trouble> {
        if matches!(format, Pixel::YUV420P | Pixel::YUVJ420P) {
            return Ok(Self::Yuv420);
        }
        let full_name = name_of(format);
        let name = full_name.trim_end_matches("le").trim_end_matches("be");
        let known = match name {
            "gray" => Some(Self::Gray),
            _ if name.starts_with("gray") => {
                let what = format!("frames of the pixel format {full_name} are depth maps, not colour images");
                return Err(Trouble { what, hint: "choose a colour camera" });
            }
            "nv12" | "nv21" | "nv16" | "nv24" | "nv42" | "yuyv422" | "uyvy422" | "yvyu422" => Some(Self::Yuv),
            "p010" | "p012" | "p016" | "p210" | "p212" | "p216" | "p410" | "p412" | "p416" => Some(Self::Yuv),
            _ if name.starts_with("yuv") => Some(Self::Yuv),
            _ if name.starts_with("gbrp") || name.starts_with("gbrap") => Some(Self::Rgb),
            "rgb24" | "bgr24" | "rgb0" | "bgr0" | "0rgb" | "0bgr" | "rgba" | "bgra" | "argb" | "abgr" | "rgb48"
            | "bgr48" => Some(Self::Rgb),
            _ => None,
        };
        known.ok_or_else(|| unknown_format(format))
    }

    /// The format to which `swscale` brings it.
    fn converted(self) -> Pixel {
        match self {
            Self::Yuv420 | Self::Yuv => Pixel::YUV444P16LE,
            Self::Gray => Pixel::GRAY16LE,
            Self::Rgb => Pixel::RGB24,
        }
    }
}

fn name_of(format: Pixel) -> &'static str {
    format.descriptor().map_or("unknown", |descriptor| descriptor.name())
}

/// What to do with a video whose colours are not converted here.
const ENCODE_AGAIN: &str = "encode the video again: ffmpeg -i OLD.mp4 -pix_fmt yuv420p NEW.mp4";

fn unknown_format(format: Pixel) -> Trouble {
    let what = format!("frames of the pixel format {} cannot be converted to RGB", name_of(format));
    Trouble { what, hint: ENCODE_AGAIN }
}

/// A frame's matrix from YUV to RGB, in the numbers of FFmpeg's `ff_yuv2rgb_coeffs`: crv, cbu, cgu, cgv in 1/65536 for chroma of 224
/// steps and RGB of 255.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Matrix([i64; 4]);

impl Matrix {
    /// The one that the stream names, BT.601 where it names none.
    ///
    /// # Errors
    /// Its colour space has no such matrix.
    fn of(frame: &frame::Video) -> Result<Self, Trouble> {
        Ok(Self(match frame.color_space() {
            color::Space::Unspecified | color::Space::Reserved | color::Space::BT470BG | color::Space::SMPTE170M => {
                [104_597, 132_201, 25_675, 53_279]
            }
            // YUV that calls itself RGB.
            color::Space::RGB => [117_504, 138_453, 13_954, 34_903],
            color::Space::BT709 => [117_489, 138_438, 13_975, 34_925],
            color::Space::FCC => [104_448, 132_798, 24_759, 53_109],
            color::Space::SMPTE240M => [117_579, 136_230, 16_907, 35_559],
            color::Space::BT2020NCL | color::Space::BT2020CL => [110_013, 140_363, 12_277, 42_626],
            other => {
                let what = format!("frames of the colour space {other:?} cannot be converted to RGB");
                return Err(Trouble {
                    what,
                    hint: "encode the video again: ffmpeg -i OLD.mp4 -vf format=rgb24,format=yuv420p NEW.mp4",
                });
            }
        }))
    }
}

/// Whether luma runs over all values rather than from 16/256 to 235/256.
fn is_full_range(frame: &frame::Video) -> bool {
    frame.format() == Pixel::YUVJ420P || frame.color_range() == color::Range::JPEG
}

/// How 16-bit values map to RGB of 0..255: `luma_scale * (Y - luma_zero)`, and the scale of chroma around 32768 for 1/255 of its range.
#[derive(Debug, Clone, Copy)]
struct Levels {
    luma_zero: f32,
    luma_scale: f32,
    chroma_scale: f32,
}

impl Levels {
    const LIMITED: Self =
        Self { luma_zero: 16.0 * 256.0, luma_scale: 255.0 / (219.0 * 256.0), chroma_scale: 1.0 / 256.0 };

    /// As FFmpeg's encoders write it at every depth: white is 255 of the upper 8 bits.
    const FULL: Self = Self { luma_zero: 0.0, luma_scale: 1.0 / 256.0, chroma_scale: 224.0 / (255.0 * 256.0) };

    /// Of a frame that `swscale` has brought to [`Pixel::YUV444P16LE`]; it makes the range of the formats `yuvj…` limited.
    fn of(frame: &frame::Video) -> Self {
        let is_limited_now = name_of(frame.format()).starts_with("yuvj");
        if !is_limited_now && frame.color_range() == color::Range::JPEG { Self::FULL } else { Self::LIMITED }
    }

    /// Of a frame that `swscale` has brought to [`Pixel::GRAY16LE`]. Gray has full range unless the stream says otherwise, as LeRobot
    /// and FFmpeg's encoders take it.
    fn of_gray(frame: &frame::Video) -> Self {
        if frame.color_range() == color::Range::MPEG { Self::LIMITED } else { Self::FULL }
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

/// Turns planes `uint8 [3,H,W]` of `size`; returns the size that they have then.
fn turn_planes(turn: Turn, size: FrameSize, planes_CHW: &[u8], out_CHW: &mut Vec<u8>) -> FrameSize {
    let FrameSize { height, width } = size;
    let turned = if turn.swaps_sides() { FrameSize { height: width, width: height } } else { size };
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
    /// As `sws_setColorspaceDetails` computes them.
    fn of(Matrix([crv, cbu, cgu, cgv]): Matrix, full_range: bool) -> Self {
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
struct YuvToRgb {
    red: Vec<i16>,
    green: Vec<i16>,
    blue: Vec<i16>,
}

impl YuvToRgb {
    /// Converts a frame to planes `uint8 [3,H,W]`.
    fn convert(&mut self, frame: &frame::Video, matrix: Matrix, out_CHW: &mut [u8]) {
        let (width, height) = (frame.width() as usize, frame.height() as usize);
        let coefficients = Coefficients::of(matrix, is_full_range(frame));
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
    use super::{Coefficients, FrameConverter, Matrix, Turn, YuvToRgb, turn_planes};
    use crate::frames::FrameSize;
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
        YuvToRgb::default().convert(&frame, Matrix::of(&frame).unwrap(), &mut planes_CHW);
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
        let full = Coefficients::of(Matrix([0; 4]), true);
        assert_eq!((full.y0, full.cy), (0, 8192));
    }

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
        let name = super::name_of(format);
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
                        let is_colour = !super::name_of(format).starts_with("gray");
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
