//! What all plots have in common: size, colours, font, and how they are written to disk.

use crate::{Result, TrackError, fs::write_atomic};
use image::{ImageFormat, RgbImage};
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};
use std::{io::Cursor, path::Path, sync::Once};

pub(super) const WIDTH: u32 = 1200;
pub(super) const HEIGHT: u32 = 700;
/// Font sizes in pixels.
pub(super) const TITLE_SIZE: u32 = 28;
pub(super) const LABEL_SIZE: u32 = 20;
pub(super) const TEXT_COLOUR: RGBColor = RGBColor(40, 40, 40);
pub(super) const GRID_COLOUR: RGBColor = RGBColor(225, 225, 225);
pub(super) const FONT: &str = "sans-serif";

/// Okabe and Ito's colours, which readers with any colour vision tell apart (<https://jfly.uni-koeln.de/color/>).
pub(super) const PALETTE: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

/// Lines beyond the palette repeat its colours with dashes: length and gap in pixels.
const DASHES: [(u32, u32); 2] = [(14, 8), (4, 6)];

/// The colour of line `index`.
pub(super) fn colour(index: usize) -> RGBColor {
    PALETTE[index % PALETTE.len()]
}

/// How line `index` is dashed; none for a solid one.
pub(super) fn dashes(index: usize) -> Option<(u32, u32)> {
    (index / PALETTE.len()).checked_sub(1).map(|round| DASHES[round % DASHES.len()])
}

pub(super) type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;
pub(super) type DrawError = Box<dyn std::error::Error>;

/// Text of `size` pixels.
pub(super) fn text(size: u32) -> TextStyle<'static> {
    (FONT, size).into_font().color(&TEXT_COLOUR)
}

/// A white image with whatever `draw` draws on it.
pub(super) fn render(
    name: &str,
    (width, height): (u32, u32),
    draw: impl FnOnce(&Area<'_>) -> Result<(), DrawError>,
) -> Result<RgbImage> {
    register_font();
    let mut drawing = RgbImage::from_pixel(width, height, image::Rgb([255; 3]));
    let drawn = {
        let area = BitMapBackend::with_buffer(&mut drawing, (width, height)).into_drawing_area();
        draw(&area).and_then(|()| Ok(area.present()?))
    };
    drawn.map_err(|error| plot_error(name, error))?;
    Ok(drawing)
}

/// Writes the image to `path` as PNG.
pub(crate) fn save(path: &Path, drawing: &RgbImage) -> Result<()> {
    write_atomic(path, encoded(&path.display().to_string(), drawing)?)
}

/// The image as PNG, in memory.
///
/// # Errors
/// It is empty.
pub fn png_bytes(drawing: &RgbImage) -> Result<Vec<u8>> {
    encoded("an image", drawing)
}

fn encoded(name: &str, drawing: &RgbImage) -> Result<Vec<u8>> {
    let mut png = Cursor::new(Vec::new());
    drawing.write_to(&mut png, ImageFormat::Png).map_err(|error| plot_error(name, error))?;
    Ok(png.into_inner())
}

pub(super) fn plot_error(name: &str, reason: impl std::fmt::Display) -> TrackError {
    TrackError::Plot { path: name.into(), reason: reason.to_string() }
}

fn register_font() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for style in [FontStyle::Normal, FontStyle::Bold] {
            if plotters::style::register_font(FONT, style, dejavu::sans::regular()).is_err() {
                tracing::error!("the program's font is damaged: plots will lack text");
            }
        }
    });
}

/// Pixels of a line of the legend: its height, the sample of the colour, and the gap after a name.
const LEGEND_ROW: i32 = (LABEL_SIZE * 3 / 2) as i32;
const LEGEND_SAMPLE: i32 = 28;
const LEGEND_GAP: i32 = 24;
/// Where the legend of a chart begins.
const LEGEND_LEFT: i32 = 2 * LEGEND_GAP + LABEL_SIZE as i32;

/// Names lines above a chart, where no curve runs: from `left`, in as many rows as they need, the middle of the first at `y`.
/// Gives the y below the last row.
pub(super) fn draw_legend<'a>(
    area: &Area<'_>,
    names: impl IntoIterator<Item = &'a str>,
    left: i32,
    y: i32,
) -> Result<i32, DrawError> {
    let right = area.dim_in_pixel().0 as i32;
    let (places, bottom) = legend_places(area, names, (left, right), y)?;
    for (index, (name, (x, y))) in places.into_iter().enumerate() {
        let (length, gap) = dashes(index).unwrap_or((LEGEND_SAMPLE as u32, 1));
        for start in (0..LEGEND_SAMPLE).step_by((length + gap) as usize) {
            let end = (start + length as i32).min(LEGEND_SAMPLE);
            let segment = [(x + start, y), (x + end, y)];
            area.draw(&PathElement::new(segment, colour(index).stroke_width(3)))?;
        }
        let style = text(LABEL_SIZE).pos(Pos::new(HPos::Left, VPos::Center));
        area.draw_text(name, &style, (x + LEGEND_SAMPLE + 8, y))?;
    }
    Ok(bottom)
}

/// A name and where its sample begins.
type Place<'a> = (&'a str, (i32, i32));

/// Where each name of a legend begins, and the y below the last row.
fn legend_places<'a>(
    area: &Area<'_>,
    names: impl IntoIterator<Item = &'a str>,
    (left, right): (i32, i32),
    mut y: i32,
) -> Result<(Vec<Place<'a>>, i32), DrawError> {
    let (mut x, mut places) = (left, Vec::new());
    for name in names {
        let width = LEGEND_SAMPLE + 8 + area.estimate_text_size(name, &text(LABEL_SIZE))?.0 as i32;
        if x > left && x + width > right {
            (x, y) = (left, y + LEGEND_ROW);
        }
        places.push((name, (x, y)));
        x += width + LEGEND_GAP;
    }
    Ok((places, y + LEGEND_ROW / 2))
}

/// Pixels by which the legend of a chart exceeds two rows.
pub(super) fn extra_height<'a>(image: &str, names: impl IntoIterator<Item = &'a str>) -> Result<u32> {
    let mut bottom = 0;
    render(image, (1, 1), |area| {
        bottom = legend_places(area, names, (LEGEND_LEFT, WIDTH as i32), LEGEND_ROW / 2)?.1;
        Ok(())
    })?;
    Ok((bottom - 2 * LEGEND_ROW).max(0) as u32)
}

/// Title and legend in the upper part of `area`; gives the part below them.
pub(super) fn draw_head<'a, 'b>(
    area: &Area<'b>,
    title: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Result<Area<'b>, DrawError> {
    let centred = text(TITLE_SIZE).pos(Pos::new(HPos::Center, VPos::Center));
    area.draw_text(title, &centred, ((area.dim_in_pixel().0 / 2) as i32, TITLE_SIZE as i32 + 4))?;
    let below = draw_legend(area, names, LEGEND_LEFT, 2 * TITLE_SIZE as i32 + LEGEND_ROW / 2)?;
    Ok(area.split_vertically(below).1)
}

/// A tick's label without needless digits.
pub(super) fn tick(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-3..1e5).contains(&size) {
        return format!("{value:e}");
    }
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').into()
}
