//! A table whose cells are shaded by their value.

use super::canvas::{self, Area, LABEL_SIZE, TITLE_SIZE, plot_error, text};
use crate::Result;
use image::RgbImage;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Size of a cell in pixels.
const CELL: (u32, u32) = (170, 34);
/// Pixels around everything.
const MARGIN: u32 = 20;
/// The fullest shade.
const SHADE: RGBColor = RGBColor(0, 114, 178);

/// A table of values from 0 to 1, each with its text.
#[derive(Debug, Clone, PartialEq)]
pub struct Heatmap {
    /// Above everything.
    pub title: String,
    /// Above each column.
    pub columns: Vec<String>,
    /// Left of each row.
    pub rows: Vec<String>,
    /// Shade from 0 (white) to 1 and text of each cell, row by row.
    pub cells: Vec<Vec<(f64, String)>>,
}

/// Draws `map`; `name` is for errors.
///
/// # Errors
/// The table is empty or ragged, or a shade is not from 0 to 1.
pub fn render_heatmap(name: &str, map: &Heatmap) -> Result<RgbImage> {
    let is_whole = map.cells.len() == map.rows.len() && map.cells.iter().all(|row| row.len() == map.columns.len());
    if map.rows.is_empty() || map.columns.is_empty() || !is_whole {
        return Err(plot_error(name, "the table needs one or more rows and columns, all of one length"));
    }
    if map.cells.iter().flatten().any(|(shade, _)| !(0.0..=1.0).contains(shade)) {
        return Err(plot_error(name, "a shade is not from 0 to 1"));
    }
    let (mut left, mut cell_width, mut title_width) = (0, CELL.0, 0);
    canvas::render(name, (1, 1), |area| {
        let width = |label: &str| -> Result<u32, Box<dyn std::error::Error>> {
            Ok(area.estimate_text_size(label, &text(LABEL_SIZE))?.0)
        };
        for row in &map.rows {
            left = left.max(width(row)?);
        }
        for column in &map.columns {
            cell_width = cell_width.max(width(column)? + MARGIN);
        }
        title_width = area.estimate_text_size(&map.title, &text(TITLE_SIZE))?.0;
        Ok(())
    })?;
    let (left, top) = (left + 2 * MARGIN, 3 * TITLE_SIZE + LABEL_SIZE);
    let width = (left + map.columns.len() as u32 * cell_width + MARGIN).max(title_width + 2 * MARGIN);
    let height = top + map.rows.len() as u32 * CELL.1 + MARGIN;
    canvas::render(name, (width, height), |area| draw(area, map, (left, top), cell_width))
}

fn draw(
    area: &Area<'_>,
    map: &Heatmap,
    (left, top): (u32, u32),
    cell_width: u32,
) -> Result<(), Box<dyn std::error::Error>> {
    let style = |size, horizontal| text(size).pos(Pos::new(horizontal, VPos::Center));
    let title = ((area.dim_in_pixel().0 / 2) as i32, TITLE_SIZE as i32);
    area.draw_text(&map.title, &style(TITLE_SIZE, HPos::Center), title)?;
    let middle = |column: usize| (left + column as u32 * cell_width + cell_width / 2) as i32;
    for (column, label) in map.columns.iter().enumerate() {
        area.draw_text(label, &style(LABEL_SIZE, HPos::Center), (middle(column), (top - LABEL_SIZE) as i32))?;
    }
    for (row, (label, cells)) in map.rows.iter().zip(&map.cells).enumerate() {
        let upper = (top + row as u32 * CELL.1) as i32;
        let centre = upper + (CELL.1 / 2) as i32;
        area.draw_text(label, &style(LABEL_SIZE, HPos::Right), ((left - MARGIN / 2) as i32, centre))?;
        for (column, (shade, label)) in cells.iter().enumerate() {
            let x = (left + column as u32 * cell_width) as i32;
            let corners = [(x, upper), (x + cell_width as i32 - 2, upper + CELL.1 as i32 - 2)];
            area.draw(&Rectangle::new(corners, SHADE.mix(*shade).filled()))?;
            let mut label_style = style(LABEL_SIZE, HPos::Center);
            if *shade > 0.5 {
                label_style = label_style.color(&WHITE);
            }
            area.draw_text(label, &label_style, (middle(column), centre))?;
        }
    }
    Ok(())
}
