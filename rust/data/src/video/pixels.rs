//! What the values of a decoded frame mean: pixel format, matrix and range of its colours.

use crate::error::FrameFailure;
use ffmpeg_next::{color, format::Pixel, frame};

/// What the values of a pixel format mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// 8-bit YUV 4:2:0, converted in one step.
    Yuv420,
    /// YUV of another layout or depth.
    Yuv,
    /// 8-bit gray.
    Gray,
    Rgb,
}

impl Layout {
    /// # Errors
    /// The format is not converted here.
    pub(super) fn of(format: Pixel) -> Result<Self, FrameFailure> {
        if matches!(format, Pixel::YUV420P | Pixel::YUVJ420P) {
            return Ok(Self::Yuv420);
        }
        let full_name = name_of(format);
        let name = full_name.trim_end_matches("le").trim_end_matches("be");
        let known = match name {
            "gray" => Some(Self::Gray),
            _ if name.starts_with("gray") => {
                let what = format!("frames of the pixel format {full_name} are depth maps, not colour images");
                return Err(FrameFailure { what, hint: "choose a colour camera" });
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

    /// The format to which `swscale` converts it.
    pub(super) fn converted(self) -> Pixel {
        match self {
            Self::Yuv420 | Self::Yuv => Pixel::YUV444P16LE,
            Self::Gray => Pixel::GRAY16LE,
            Self::Rgb => Pixel::RGB24,
        }
    }
}

/// FFmpeg's name of a pixel format.
pub(super) fn name_of(format: Pixel) -> &'static str {
    format.descriptor().map_or("unknown", |descriptor| descriptor.name())
}

/// The hint for a video whose colours are not converted here.
const ENCODE_AGAIN: &str = "encode the video again: ffmpeg -i OLD.mp4 -pix_fmt yuv420p NEW.mp4";

/// The failure of a frame whose pixel format cannot be converted.
pub(super) fn unknown_format(format: Pixel) -> FrameFailure {
    let what = format!("frames of the pixel format {} cannot be converted to RGB", name_of(format));
    FrameFailure { what, hint: ENCODE_AGAIN }
}

/// A frame's matrix from YUV to RGB, in the numbers of FFmpeg's `ff_yuv2rgb_coeffs`: crv, cbu, cgu, cgv in 1/65536 for chroma of 224
/// steps and RGB of 255.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Matrix(pub(super) [i64; 4]);

impl Matrix {
    /// The one that the stream names, BT.601 where it names none.
    ///
    /// # Errors
    /// Its colour space has no such matrix.
    pub(super) fn of(frame: &frame::Video) -> Result<Self, FrameFailure> {
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
                return Err(FrameFailure {
                    what,
                    hint: "encode the video again: ffmpeg -i OLD.mp4 -vf format=rgb24,format=yuv420p NEW.mp4",
                });
            }
        }))
    }
}

/// Whether luma runs over all values rather than from 16/256 to 235/256.
pub(super) fn is_full_range(frame: &frame::Video) -> bool {
    frame.format() == Pixel::YUVJ420P || frame.color_range() == color::Range::JPEG
}

/// How 16-bit values map to RGB of 0..255: `luma_scale * (Y - luma_zero)`, and the scale of chroma around 32768 for 1/255 of its range.
#[derive(Debug, Clone, Copy)]
pub(super) struct Levels {
    pub(super) luma_zero: f32,
    pub(super) luma_scale: f32,
    pub(super) chroma_scale: f32,
}

impl Levels {
    const LIMITED: Self =
        Self { luma_zero: 16.0 * 256.0, luma_scale: 255.0 / (219.0 * 256.0), chroma_scale: 1.0 / 256.0 };

    /// As FFmpeg's encoders write it at every depth: white is 255 of the upper 8 bits.
    const FULL: Self = Self { luma_zero: 0.0, luma_scale: 1.0 / 256.0, chroma_scale: 224.0 / (255.0 * 256.0) };

    /// Of a frame that `swscale` has converted to [`Pixel::YUV444P16LE`]; it makes the range of the formats `yuvj…` limited.
    pub(super) fn of(frame: &frame::Video) -> Self {
        let is_limited_now = name_of(frame.format()).starts_with("yuvj");
        if !is_limited_now && frame.color_range() == color::Range::JPEG { Self::FULL } else { Self::LIMITED }
    }

    /// Of a frame that `swscale` has converted to [`Pixel::GRAY16LE`]. Gray has full range unless the stream says otherwise, as in
    /// LeRobot and FFmpeg's encoders.
    pub(super) fn of_gray(frame: &frame::Video) -> Self {
        if frame.color_range() == color::Range::MPEG { Self::LIMITED } else { Self::FULL }
    }
}
