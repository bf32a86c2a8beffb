//! Images in rows and columns: reconstructions, contact sheets.

use super::canvas::{self, LABEL_SIZE, TITLE_SIZE, plot_error, text};
use crate::Result;
use image::{RgbImage, imageops};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::path::Path;

/// Images smaller than this many pixels on their longer side are enlarged by a whole factor, without blur, to reach it.
const MIN_CELL: u32 = 128;
/// Pixels between images.
const GAP: u32 = 8;
/// Pixels around everything.
const MARGIN: u32 = 16;
/// Pixels from one line of a label to the next.
const LINE_HEIGHT: u32 = LABEL_SIZE * 5 / 4;

/// An RGB image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GridImage<'a> {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// `uint8`, height × width × 3.
    pub rgb_HWC: &'a [u8],
}

/// Images in rows of equal length; all images have one size.
#[derive(Debug, Clone, Default)]
pub struct ImageGrid<'a> {
    /// Above everything; empty = none.
    pub title: String,
    /// Above each column; empty = none.
    pub column_titles: Vec<String>,
    /// Left of each row, with line breaks where wanted; empty = none.
    pub row_labels: Vec<String>,
    /// The images, row by row.
    pub rows: Vec<Vec<GridImage<'a>>>,
}

/// Where things lie, in pixels.
struct Layout {
    scale: u32,
    cell_width: u32,
    cell_height: u32,
    /// From one column to the next: as wide as its images or its title, whichever is wider.
    column_step: u32,
    /// From one row to the next: as high as its images or its label, whichever is higher.
    row_step: u32,
    left: u32,
    top: u32,
    width: u32,
    height: u32,
}

/// Writes `grid` to the PNG file `path`.
///
/// # Errors
/// As [`render_grid`], or the file cannot be written.
pub fn draw_grid(path: &Path, grid: &ImageGrid<'_>) -> Result<()> {
    canvas::save(path, &render_grid(&path.display().to_string(), grid)?)
}

/// Draws `grid`; `name` is for errors.
///
/// # Errors
/// The grid is empty or ragged, an image has not the size that it states.
pub fn render_grid(name: &str, grid: &ImageGrid<'_>) -> Result<RgbImage> {
    check(grid).map_err(|reason| plot_error(name, reason))?;
    let layout = layout(name, grid)?;
    let mut sheet = canvas::render(name, (layout.width, layout.height), |area| {
        let centred = |size| text(size).pos(Pos::new(HPos::Center, VPos::Center));
        let title_y = (MARGIN + TITLE_SIZE / 2) as i32;
        area.draw_text(&grid.title, &centred(TITLE_SIZE), ((layout.width / 2) as i32, title_y))?;
        for (column, title) in grid.column_titles.iter().enumerate() {
            let (x, _) = layout.cell(0, column);
            let at = (x + layout.cell_width / 2, layout.top - LABEL_SIZE);
            area.draw_text(title, &centred(LABEL_SIZE), (at.0 as i32, at.1 as i32))?;
        }
        let label_style = text(LABEL_SIZE).pos(Pos::new(HPos::Right, VPos::Center));
        for (row, label) in grid.row_labels.iter().enumerate() {
            let (x, y) = layout.cell(row, 0);
            let line_height = LINE_HEIGHT;
            let num_lines = label.lines().count() as u32;
            let first = (y + layout.cell_height / 2) as i32 - (num_lines.saturating_sub(1) * line_height / 2) as i32;
            for (index, line) in label.lines().enumerate() {
                let at = ((x - GAP) as i32, first + (index as u32 * line_height) as i32);
                area.draw_text(line, &label_style, at)?;
            }
        }
        Ok(())
    })?;
    for (row, images) in grid.rows.iter().enumerate() {
        for (column, image) in images.iter().enumerate() {
            let (x, y) = layout.cell(row, column);
            imageops::replace(&mut sheet, &enlarged(image, layout.scale), x.into(), y.into());
        }
    }
    Ok(sheet)
}

impl Layout {
    /// Upper left corner of an image.
    fn cell(&self, row: usize, column: usize) -> (u32, u32) {
        let indent = (self.column_step - GAP - self.cell_width) / 2;
        (self.left + column as u32 * self.column_step + indent, self.top + row as u32 * self.row_step)
    }
}

fn layout(name: &str, grid: &ImageGrid<'_>) -> Result<Layout> {
    let GridImage { width, height, .. } = grid.rows[0][0];
    let scale = MIN_CELL.div_ceil(width.max(height)).max(1);
    let (cell_width, cell_height) = (width * scale, height * scale);
    let (mut widest_label, mut widest_column, mut title_width) = (0, cell_width, 0);
    canvas::render(name, (1, 1), |area| {
        let width = |line: &str, size| Ok::<_, canvas::DrawError>(area.estimate_text_size(line, &text(size))?.0);
        for line in grid.row_labels.iter().flat_map(|label| label.lines()) {
            widest_label = widest_label.max(width(line, LABEL_SIZE)?);
        }
        for title in &grid.column_titles {
            widest_column = widest_column.max(width(title, LABEL_SIZE)?);
        }
        title_width = width(&grid.title, TITLE_SIZE)?;
        Ok(())
    })?;
    let column_step = widest_column + GAP;
    let most_lines = grid.row_labels.iter().map(|label| label.lines().count()).max().unwrap_or(0) as u32;
    let row_step = cell_height.max((most_lines + 1) * LINE_HEIGHT) + GAP;
    let left = MARGIN + if widest_label > 0 { widest_label + GAP } else { 0 };
    let top = MARGIN
        + if grid.title.is_empty() { 0 } else { TITLE_SIZE + GAP }
        + if grid.column_titles.is_empty() { 0 } else { LABEL_SIZE * 7 / 4 };
    let (num_rows, num_columns) = (grid.rows.len() as u32, grid.rows[0].len() as u32);
    Ok(Layout {
        scale,
        cell_width,
        cell_height,
        column_step,
        row_step,
        left,
        top,
        width: (left + num_columns * column_step - GAP + MARGIN).max(title_width + 2 * MARGIN),
        height: top + num_rows * row_step - GAP + MARGIN,
    })
}

fn check(grid: &ImageGrid<'_>) -> Result<(), String> {
    let first = *grid.rows.first().and_then(|row| row.first()).ok_or("the grid holds no image")?;
    let num_columns = grid.rows[0].len();
    for (row, images) in grid.rows.iter().enumerate() {
        if images.len() != num_columns {
            return Err(format!("row {row} holds {} images, row 0 holds {num_columns}", images.len()));
        }
        for (column, image) in images.iter().enumerate() {
            let GridImage { width, height, rgb_HWC } = *image;
            if (width, height) != (first.width, first.height) {
                return Err(format!("the image in row {row}, column {column} differs in size from the first"));
            }
            let num_bytes = width as usize * height as usize * 3;
            if num_bytes == 0 || rgb_HWC.len() != num_bytes {
                let have = rgb_HWC.len();
                return Err(format!(
                    "the image in row {row}, column {column} holds {have} bytes; {width}x{height} RGB has {num_bytes}"
                ));
            }
        }
    }
    for (what, have, want) in [
        ("column titles", grid.column_titles.len(), num_columns),
        ("row labels", grid.row_labels.len(), grid.rows.len()),
    ] {
        if have != 0 && have != want {
            return Err(format!("{have} {what} for {want}"));
        }
    }
    Ok(())
}

fn enlarged(image: &GridImage<'_>, scale: u32) -> RgbImage {
    RgbImage::from_fn(image.width * scale, image.height * scale, |x, y| {
        let at = ((y / scale) as usize * image.width as usize + (x / scale) as usize) * 3;
        image::Rgb([image.rgb_HWC[at], image.rgb_HWC[at + 1], image.rgb_HWC[at + 2]])
    })
}
