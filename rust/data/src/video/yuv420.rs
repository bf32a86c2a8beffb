//! 8-bit YUV 4:2:0 to RGB, bit for bit as FFmpeg's `swscale` does by default (LeRobot's way for most widths).
//!
//! Formula of libswscale (`yuv2rgb.c`, `x86/yuv_2_rgb.asm`): with all values in 1/8 steps and coefficients in 1/8192,
//! `Y' = (8 Y - y0) cy >> 16`, `R = Y' + ((8 V - 1024) crv >> 16)`, `B = Y' + ((8 U - 1024) cbu >> 16)`,
//! `G = Y' + ((8 U - 1024) cgu >> 16) + ((8 V - 1024) cgv >> 16)`; each chroma sample is that of 2x2 pixels.

use super::pixels::{Matrix, is_full_range};
use ffmpeg_next::frame;

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
pub(super) struct YuvToRgb {
    red: Vec<i16>,
    green: Vec<i16>,
    blue: Vec<i16>,
}

impl YuvToRgb {
    /// Converts a frame to planes `uint8 [3,H,W]`.
    pub(super) fn convert(&mut self, frame: &frame::Video, matrix: Matrix, out_CHW: &mut [u8]) {
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
    use super::{Coefficients, Matrix, YuvToRgb};
    use ffmpeg_next::{
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
}
