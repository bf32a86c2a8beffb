//! The axes of a chart: their names and ticks, and the values that they span.

use super::canvas::{Area, DrawError, GRID_COLOUR, LABEL_SIZE, TEXT_COLOUR, text};
use plotters::{
    coord::ranged1d::{AsRangedCoord, ValueFormatter},
    prelude::*,
};
use std::ops::Range;

/// One axis.
pub(super) struct Axis<'a, R> {
    /// What it spans, and whether that is logarithmic.
    pub(super) range: R,
    /// Its name.
    pub(super) label: &'a str,
    /// The label of a tick.
    pub(super) tick: &'a dyn Fn(&f64) -> String,
}

/// The chart that fills an area.
pub(super) type Chart<'a, 'b, X, Y> = ChartContext<
    'a,
    BitMapBackend<'b>,
    Cartesian2d<<X as AsRangedCoord>::CoordDescType, <Y as AsRangedCoord>::CoordDescType>,
>;

/// Draws the axes of a chart that fills `area`.
pub(super) fn draw_axes<'a, 'b, X, Y>(
    area: &'a Area<'b>,
    x: Axis<'_, X>,
    y: Axis<'_, Y>,
) -> Result<Chart<'a, 'b, X, Y>, DrawError>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let mut chart = ChartBuilder::on(area)
        .margin(20)
        .margin_right(40)
        .x_label_area_size(60)
        .y_label_area_size(100)
        .build_cartesian_2d(x.range, y.range)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID_COLOUR)
        .axis_style(TEXT_COLOUR)
        .x_desc(x.label)
        .y_desc(y.label)
        .x_label_formatter(x.tick)
        .y_label_formatter(y.tick)
        .label_style(text(LABEL_SIZE))
        .axis_desc_style(text(LABEL_SIZE))
        .draw()?;
    Ok(chart)
}

/// The smallest and the largest value.
pub(super) fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

/// From the smallest to the largest value, widened by `margin` of that on both sides; never empty.
pub(super) fn span(values: impl Iterator<Item = f64>, margin: f64) -> Range<f64> {
    let (low, high) = bounds(values);
    let room = if high > low { (high - low) * margin } else { high.abs().max(1.0) * 0.5 };
    low - room..high + room
}
