//! A bar for each category, such as each code of a codebook.

use super::canvas::{self, GRID_COLOUR, HEIGHT, LABEL_SIZE, PALETTE, TEXT_COLOUR, WIDTH, plot_error, text, tick};
use crate::Result;
use image::RgbImage;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::path::Path;

/// Width of a bar as a fraction of the distance between bars.
const BAR_WIDTH: f64 = 0.8;

/// Pixels below the axis for names of bars, and from the axis to a name.
const NAMES_HEIGHT: u32 = 170;
const NAME_GAP: i32 = 8;

/// Bars over consecutive indices.
#[derive(Debug, Clone, PartialEq)]
pub struct BarChart {
    /// Above the chart.
    pub title: String,
    /// Below the horizontal axis.
    pub x_label: String,
    /// Beside the vertical axis.
    pub y_label: String,
    /// Height of the bar of each index.
    pub values: Vec<f64>,
    /// Name of each bar, below it; empty = its index.
    pub names: Vec<String>,
    /// A height to compare with, drawn as a line, and its name.
    pub reference: Option<(String, f64)>,
}

/// Writes `chart` to the PNG file `path`.
///
/// # Errors
/// As [`render_bars`], or the file cannot be written.
pub fn draw_bars(path: &Path, chart: &BarChart) -> Result<()> {
    canvas::save(path, &render_bars(&path.display().to_string(), chart)?)
}

/// Draws `chart`; `name` is for errors.
///
/// # Errors
/// There is no value or one is negative or not finite.
pub fn render_bars(name: &str, chart: &BarChart) -> Result<RgbImage> {
    let num_bars = chart.values.len();
    if !chart.names.is_empty() && chart.names.len() != num_bars {
        return Err(plot_error(name, format!("{} names for {num_bars} bars", chart.names.len())));
    }
    if num_bars == 0 || chart.values.iter().any(|value| !value.is_finite() || *value < 0.0) {
        return Err(plot_error(name, "the bars need one or more values, all finite and none negative"));
    }
    let heights = chart.values.iter().copied().chain(chart.reference.iter().map(|(_, height)| *height));
    let top = heights.fold(f64::MIN_POSITIVE, f64::max) * 1.1;
    let right = num_bars as f64 - 0.5;
    let has_names = !chart.names.is_empty();
    let (num_labels, label_area) = if has_names { (2, NAMES_HEIGHT) } else { (num_bars.min(17), 60) };
    let index_of = |index: f64| if has_names || index.fract() != 0.0 { String::new() } else { format!("{index:.0}") };
    canvas::render(name, (WIDTH, HEIGHT), |area| {
        // Without a reference the bars speak for themselves.
        let names = chart.reference.iter().flat_map(|(name, _)| [chart.y_label.as_str(), name]);
        let below = canvas::draw_head(area, &chart.title, names)?;
        let mut context = ChartBuilder::on(&below)
            .margin(20)
            .margin_right(40)
            .x_label_area_size(label_area)
            .y_label_area_size(100)
            .build_cartesian_2d(-0.5..right, 0.0..top)?;
        context
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID_COLOUR)
            .axis_style(TEXT_COLOUR)
            .x_desc(&chart.x_label)
            .y_desc(&chart.y_label)
            .x_labels(num_labels)
            .x_label_formatter(&|index| index_of(*index))
            .y_label_formatter(&|height| tick(*height))
            .label_style(text(LABEL_SIZE))
            .axis_desc_style(text(LABEL_SIZE))
            .draw()?;
        let half = BAR_WIDTH / 2.0;
        context.draw_series(chart.values.iter().enumerate().map(|(index, value)| {
            let middle = index as f64;
            Rectangle::new([(middle - half, 0.0), (middle + half, *value)], PALETTE[0].filled())
        }))?;
        if let Some((_, height)) = &chart.reference {
            let style = PALETTE[1].stroke_width(3);
            context.draw_series(LineSeries::new([(-0.5, *height), (right, *height)], style))?;
        }
        let downwards = text(LABEL_SIZE).transform(FontTransform::Rotate90).pos(Pos::new(HPos::Left, VPos::Center));
        for (index, name) in chart.names.iter().enumerate() {
            let (x, y) = context.backend_coord(&(index as f64, 0.0));
            area.draw_text(name, &downwards, (x, y + NAME_GAP))?;
        }
        Ok(())
    })
}
