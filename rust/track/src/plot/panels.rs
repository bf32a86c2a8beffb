//! Small line charts in rows and columns, such as predicted action chunks over true ones.

use super::canvas::{self, Area, GRID_COLOUR, LABEL_SIZE, PALETTE, TEXT_COLOUR, TITLE_SIZE, plot_error, text, tick};
use crate::Result;
use image::RgbImage;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::{ops::Range, path::Path};

/// Pixels of one chart with its axes.
const CELL: (u32, u32) = (340, 210);
/// Font size of the axis ticks, in pixels.
const TICK_SIZE: u32 = 15;
/// Pixels above the charts: title, legend, column titles.
const HEAD: u32 = 3 * TITLE_SIZE + LABEL_SIZE;
/// Pixels around everything.
const MARGIN: u32 = 12;

/// One line in every chart of a grid.
#[derive(Debug, Clone, PartialEq)]
pub struct PanelLine {
    /// Name in the legend.
    pub name: String,
    /// Values by row, column and position; values that are not finite are left out.
    pub values: Vec<Vec<Vec<f64>>>,
}

/// Charts that share their lines; a column shares its vertical axis.
#[derive(Debug, Clone, PartialEq)]
pub struct PanelGrid {
    /// Above everything.
    pub title: String,
    /// Below the charts of the last row.
    pub x_label: String,
    /// Above each column.
    pub column_titles: Vec<String>,
    /// Left of each row, with line breaks where wanted.
    pub row_labels: Vec<String>,
    /// The lines.
    pub lines: Vec<PanelLine>,
}

/// Writes `grid` to the PNG file `path`.
///
/// # Errors
/// As [`render_panels`], or the file cannot be written.
pub fn draw_panels(path: &Path, grid: &PanelGrid) -> Result<()> {
    canvas::save(path, &render_panels(&path.display().to_string(), grid)?)
}

/// Draws `grid`; `name` is for errors.
///
/// # Errors
/// There is no chart, a line lacks one.
pub fn render_panels(name: &str, grid: &PanelGrid) -> Result<RgbImage> {
    let (num_rows, num_columns) = (grid.row_labels.len(), grid.column_titles.len());
    let is_whole = |line: &PanelLine| {
        line.values.len() == num_rows && line.values.iter().all(|columns| columns.len() == num_columns)
    };
    if num_rows == 0 || num_columns == 0 || !grid.lines.iter().all(is_whole) {
        return Err(plot_error(
            name,
            format!("every line needs {num_rows} rows of {num_columns} charts, and at least one"),
        ));
    }
    let mut label_width = 0;
    canvas::render(name, (1, 1), |area| {
        for line in grid.row_labels.iter().flat_map(|label| label.lines()) {
            label_width = label_width.max(area.estimate_text_size(line, &text(LABEL_SIZE))?.0);
        }
        Ok(())
    })?;
    let left = 2 * MARGIN + label_width;
    let width = left + num_columns as u32 * CELL.0 + MARGIN;
    let height = HEAD + num_rows as u32 * CELL.1 + 2 * LABEL_SIZE;
    canvas::render(name, (width, height), |area| {
        draw_head(area, grid, left, width)?;
        let centred = text(LABEL_SIZE).pos(Pos::new(HPos::Center, VPos::Center));
        let middle = ((left + width) / 2) as i32;
        area.draw_text(&grid.x_label, &centred, (middle, (height - LABEL_SIZE) as i32))?;
        for (row, label) in grid.row_labels.iter().enumerate() {
            draw_label(area, label, left - MARGIN, HEAD + row as u32 * CELL.1 + CELL.1 / 2)?;
            for column in 0..num_columns {
                let at = (left + column as u32 * CELL.0, HEAD + row as u32 * CELL.1);
                let cell = area.clone().shrink(at, CELL);
                draw_chart(&cell, grid, row, column)?;
            }
        }
        Ok(())
    })
}

type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

/// Title, legend and column titles.
fn draw_head(area: &Area<'_>, grid: &PanelGrid, left: u32, width: u32) -> Drawn {
    let centred = |size| text(size).pos(Pos::new(HPos::Center, VPos::Center));
    area.draw_text(&grid.title, &centred(TITLE_SIZE), ((width / 2) as i32, TITLE_SIZE as i32))?;
    let names = grid.lines.iter().map(|line| line.name.as_str());
    canvas::draw_legend(area, names, left as i32, (2 * TITLE_SIZE + LABEL_SIZE / 2) as i32)?;
    for (column, title) in grid.column_titles.iter().enumerate() {
        let middle = left + column as u32 * CELL.0 + CELL.0 / 2;
        area.draw_text(title, &centred(LABEL_SIZE), (middle as i32, (HEAD - LABEL_SIZE / 2) as i32))?;
    }
    Ok(())
}

/// Lines of text whose right end is `right` and whose middle is `middle`.
fn draw_label(area: &Area<'_>, label: &str, right: u32, middle: u32) -> Drawn {
    let style = text(LABEL_SIZE).pos(Pos::new(HPos::Right, VPos::Center));
    let line_height = (LABEL_SIZE * 5 / 4) as i32;
    let first = middle as i32 - (label.lines().count().saturating_sub(1) as i32 * line_height) / 2;
    for (index, line) in label.lines().enumerate() {
        area.draw_text(line, &style, (right as i32, first + index as i32 * line_height))?;
    }
    Ok(())
}

fn draw_chart(cell: &Area<'_>, grid: &PanelGrid, row: usize, column: usize) -> Drawn {
    let (x, y) = ranges(grid, column);
    let y_span = y.end - y.start;
    let mut context = ChartBuilder::on(cell)
        .margin(8)
        .x_label_area_size(TICK_SIZE + 8)
        .y_label_area_size(52)
        .build_cartesian_2d(x, y)?;
    context
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID_COLOUR)
        .axis_style(TEXT_COLOUR)
        .x_labels(6)
        .y_labels(5)
        .x_label_formatter(&|step| format!("{step:.0}"))
        // The middle of an axis may miss 0 by a rounding error.
        .y_label_formatter(&|value| tick(if value.abs() < y_span * 1e-9 { 0.0 } else { *value }))
        .label_style(text(TICK_SIZE))
        .draw()?;
    for (index, line) in grid.lines.iter().enumerate() {
        let colour = PALETTE[index % PALETTE.len()];
        let points = line.values[row][column].iter().enumerate().map(|(at, value)| (at as f64, *value));
        let points: Vec<(f64, f64)> = points.filter(|(_, value)| value.is_finite()).collect();
        context.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(3)))?;
        if points.len() == 1 {
            context.draw_series(points.iter().map(|point| Circle::new(*point, 4, colour.filled())))?;
        }
    }
    Ok(())
}

/// Axes that hold every line of a column.
fn ranges(grid: &PanelGrid, column: usize) -> (Range<f64>, Range<f64>) {
    let of_column = || grid.lines.iter().flat_map(|line| line.values.iter().map(|columns| &columns[column]));
    let longest = of_column().map(Vec::len).max().unwrap_or(1);
    let finite = of_column().flatten().copied().filter(|value| value.is_finite());
    let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
    let (low, high) = if low <= high { (low, high) } else { (0.0, 0.0) };
    let room = ((high - low) * 0.08).max(1e-3);
    (0.0..(longest as f64 - 1.0).max(1.0), low - room..high + room)
}
