//! Groups of points in a plane, such as actions coloured by their code.

use super::{
    axes::{Axis, draw_axes, span},
    canvas::{self, HEIGHT, PALETTE, WIDTH, plot_error, tick},
};
use crate::Result;
use image::RgbImage;
use plotters::prelude::*;
use std::ops::Range;

/// Radius of a point in pixels.
const RADIUS: i32 = 4;
/// Room beside the outermost points, as a fraction of what they span.
const MARGIN: f64 = 0.05;
/// What is in no group of its own.
const REST_COLOUR: RGBColor = RGBColor(205, 205, 205);

/// Points of one colour and mark.
#[derive(Debug, Clone, PartialEq)]
pub struct PointGroup {
    /// Name in the legend.
    pub name: String,
    /// (x, y); points that are not finite are left out.
    pub points: Vec<(f64, f64)>,
}

/// Groups of points in a plane.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PointChart {
    /// Above the chart.
    pub title: String,
    /// Below the horizontal axis.
    pub x_label: String,
    /// Beside the vertical axis.
    pub y_label: String,
    /// The groups, in the order of the legend.
    pub groups: Vec<PointGroup>,
    /// Points of no group, grey and below all others.
    pub rest: Vec<(f64, f64)>,
    /// One unit is equally long on both axes.
    pub equal_axes: bool,
    /// A line from the origin to each point of a group.
    pub from_origin: bool,
}

/// Draws `chart`; `name` is for errors.
///
/// # Errors
/// No point is finite.
pub fn render_points(name: &str, chart: &PointChart) -> Result<RgbImage> {
    let is_finite = |point: &&(f64, f64)| point.0.is_finite() && point.1.is_finite();
    let all: Vec<(f64, f64)> =
        chart.groups.iter().flat_map(|group| &group.points).chain(&chart.rest).filter(is_finite).copied().collect();
    if all.is_empty() {
        return Err(plot_error(name, "there is no finite point"));
    }
    let origin = chart.from_origin.then_some((0.0, 0.0));
    let places = || all.iter().copied().chain(origin);
    let (mut x, mut y) = (span(places().map(|point| point.0), MARGIN), span(places().map(|point| point.1), MARGIN));
    let names = || chart.groups.iter().map(|group| group.name.as_str());
    let height = HEIGHT + canvas::extra_height(name, names())?;
    if chart.equal_axes {
        // The plane is about as wide as the image and as high as it without title and legend.
        let ratio = f64::from(WIDTH) / f64::from(HEIGHT) * 1.2;
        let unit = ((x.end - x.start) / ratio).max(y.end - y.start);
        (x, y) = (around(&x, unit * ratio), around(&y, unit));
    }
    // The middle of an axis may miss 0 by a rounding error.
    let near_zero = (x.end - x.start) * 1e-9;
    let label = |value: f64| tick(if value.abs() < near_zero { 0.0 } else { value });
    canvas::render(name, (WIDTH, height), |area| {
        let below = canvas::draw_head(area, &chart.title, names())?;
        let tick = |value: &f64| label(*value);
        let x = Axis { range: x, label: &chart.x_label, tick: &tick };
        let y = Axis { range: y, label: &chart.y_label, tick: &tick };
        let mut context = draw_axes(&below, x, y)?;
        let rest = chart.rest.iter().filter(is_finite);
        context.draw_series(rest.map(|point| Circle::new(*point, RADIUS - 1, REST_COLOUR.filled())))?;
        for (index, group) in chart.groups.iter().enumerate() {
            let colour = canvas::colour(index);
            let points = || group.points.iter().filter(is_finite).copied();
            if chart.from_origin {
                let line = |point| PathElement::new([(0.0, 0.0), point], colour.stroke_width(2));
                context.draw_series(points().map(line))?;
            }
            match index / PALETTE.len() {
                0 => context.draw_series(points().map(|point| Circle::new(point, RADIUS, colour.filled())))?,
                1 => context
                    .draw_series(points().map(|point| TriangleMarker::new(point, RADIUS + 2, colour.filled())))?,
                _ => context.draw_series(points().map(|point| Cross::new(point, RADIUS, colour.stroke_width(2))))?,
            };
        }
        Ok(())
    })
}

/// The range of `width` with the same middle.
fn around(range: &Range<f64>, width: f64) -> Range<f64> {
    let middle = f64::midpoint(range.start, range.end);
    middle - width / 2.0..middle + width / 2.0
}
