//! A white image that text, curves and images are drawn on.

use font8x8::{BASIC_FONTS, LATIN_FONTS, UnicodeFonts};
use image::{Rgb, RgbImage};
use std::ops::Range;

/// Pixels between images.
pub(super) const GAP: u32 = 4;
/// Characters of a line's label.
pub(super) const LABEL_LETTERS: usize = 26;
/// Pixels of a line's label.
pub(super) const LABEL_WIDTH: u32 = LABEL_LETTERS as u32 * GLYPH + 12;
/// Pixels of the title.
pub(super) const TITLE_HEIGHT: u32 = 40;
/// Pixels of a character, at the scale of the text.
pub(super) const GLYPH: u32 = 8;
const INK: Rgb<u8> = Rgb([32, 32, 32]);
const PAPER: Rgb<u8> = Rgb([255, 255, 255]);

/// A white image that is drawn on.
pub(super) struct Canvas {
    image: RgbImage,
}

impl Canvas {
    /// Of this width and height.
    pub(super) fn new(width: u32, height: u32) -> Self {
        Self { image: RgbImage::from_pixel(width, height, PAPER) }
    }

    /// The image as it is now.
    pub(super) fn into_image(self) -> RgbImage {
        self.image
    }

    /// Draws a part of a column.
    pub(super) fn column(&mut self, x: u32, rows: Range<u32>, color: Rgb<u8>) {
        rows.for_each(|y| self.image.put_pixel(x, y, color));
    }

    /// Writes one line of text; what does not fit is cut off.
    pub(super) fn text(&mut self, x: u32, y: u32, scale: u32, text: &str) {
        for (nth, letter) in (0..).zip(text.chars()) {
            let glyph = BASIC_FONTS.get(letter).or_else(|| LATIN_FONTS.get(letter)).or_else(|| BASIC_FONTS.get('?'));
            for (row, bits) in (0..).zip(glyph.unwrap_or_default()) {
                for column in (0..GLYPH).filter(|column| bits >> column & 1 == 1) {
                    self.square(x + (nth * GLYPH + column) * scale, y + row * scale, scale);
                }
            }
        }
    }

    fn square(&mut self, x: u32, y: u32, size: u32) {
        for (x, y) in (x..x + size).flat_map(|x| (y..y + size).map(move |y| (x, y))) {
            if x < self.image.width() && y < self.image.height() {
                self.image.put_pixel(x, y, INK);
            }
        }
    }

    /// Writes text in lines of at most `width` characters and returns their number.
    pub(super) fn paragraph(&mut self, x: u32, y: u32, width: usize, max_lines: usize, text: &str) {
        let mut lines = vec![String::new()];
        for word in text.split_whitespace() {
            let letters = |text: &str| text.chars().count();
            let line = lines.last_mut().map_or(0, |line| letters(line));
            if line > 0 && line + 1 + letters(word) > width {
                lines.push(String::new());
            }
            if let Some(line) = lines.last_mut() {
                if !line.is_empty() {
                    line.push(' ');
                }
                line.extend(word.chars().take(width));
            }
        }
        for (nth, line) in (0..).zip(lines.iter().take(max_lines)) {
            self.text(x, y + nth * (GLYPH + 3), 1, line);
        }
    }

    /// Pastes planes `uint8 [3,H,W]`.
    pub(super) fn paste(&mut self, x: u32, y: u32, width: u32, height: u32, pixels_CHW: &[u8]) {
        let plane = (width * height) as usize;
        for (at, (row, column)) in (0..height).flat_map(|row| (0..width).map(move |column| (row, column))).enumerate() {
            let color = Rgb([pixels_CHW[at], pixels_CHW[plane + at], pixels_CHW[2 * plane + at]]);
            self.image.put_pixel(x + column, y + row, color);
        }
    }
}
