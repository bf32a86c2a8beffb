//! Curves over training steps.

use super::canvas::{self, Area, GRID_COLOUR, HEIGHT, LABEL_SIZE, PALETTE, WIDTH, plot_error, text, tick};
use crate::{
    Result,
    metrics::{MetricSpec, MetricsRow, series},
};
use plotters::{
    coord::ranged1d::{AsRangedCoord, ValueFormatter},
    prelude::*,
};
use std::{
    ops::Range,
    path::{Path, PathBuf},
};

/// A curve with more points than this gets a smooth line over its faint points.
const MAX_RAW_POINTS: usize = 200;
/// Points that the smooth line averages over, as a fraction of the curve.
const SMOOTHING_FRACTION: f64 = 0.02;
/// A curve with at most this many points shows each as a dot.
const MAX_DOTS: usize = 40;

/// A logarithmic axis with fewer ticks than this would say too little; the axis is then linear.
const MIN_LOG_TICKS: usize = 2;
/// With more ticks than this only powers of ten are labelled.
const MAX_LOG_TICKS: usize = 10;

/// One curve.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// Name in the legend.
    pub name: String,
    /// (step, value); values that are not finite are left out.
    pub points: Vec<(u64, f64)>,
}

/// Several curves over one axis of steps.
#[derive(Debug, Clone, PartialEq)]
pub struct CurveChart {
    /// Above the chart.
    pub title: String,
    /// Beside the vertical axis.
    pub y_label: String,
    /// Logarithmic vertical axis, where the values span enough for one. Values ≤ 0 are then left out.
    pub log_y: bool,
    /// The curves, in the order of the legend.
    pub curves: Vec<Curve>,
}

/// Draws the curves that `specs` declare into the folder `plots` and returns the files; a plot without a value is left out.
///
/// # Errors
/// As [`draw_curves`].
pub fn draw_metrics(plots: &Path, rows: &[MetricsRow], specs: &[MetricSpec]) -> Result<Vec<PathBuf>> {
    let mut charts: Vec<(PathBuf, CurveChart)> = Vec::new();
    for (spec, plot) in specs.iter().filter_map(|spec| Some((spec, spec.curve.as_ref()?))) {
        let curve = Curve { name: spec.title(), points: series(rows, &spec.name) };
        if drawable(&curve, plot.log).is_empty() {
            continue;
        }
        let path = plots.join(&plot.file);
        match charts.iter_mut().find(|(known, _)| *known == path) {
            Some((_, chart)) => chart.curves.push(curve),
            None => {
                let (title, y_label) = (plot.title.clone(), plot.y_label.clone());
                charts.push((path, CurveChart { title, y_label, log_y: plot.log, curves: vec![curve] }));
            }
        }
    }
    charts.into_iter().map(|(path, chart)| draw_curves(&path, &chart).map(|()| path)).collect()
}

/// Writes `chart` to the PNG file `path`.
///
/// # Errors
/// No curve has a point that can be drawn, or the file cannot be written.
pub fn draw_curves(path: &Path, chart: &CurveChart) -> Result<()> {
    let curves: Vec<(&str, Vec<(f64, f64)>)> =
        chart.curves.iter().map(|curve| (curve.name.as_str(), drawable(curve, chart.log_y))).collect();
    let all = || curves.iter().flat_map(|(_, points)| points.iter());
    if all().next().is_none() {
        return Err(plot_error(&path.display().to_string(), "no curve has a finite value"));
    }
    let x = span(all().map(|point| point.0), 0.0, false);
    let y = span(all().map(|point| point.1), 0.05, chart.log_y);
    let image = canvas::render(&path.display().to_string(), (WIDTH, HEIGHT), |area| {
        let ticks = if chart.log_y { log_ticks(&y) } else { Vec::new() };
        if ticks.len() >= MIN_LOG_TICKS {
            draw(area, chart, &curves, x, y.log_scale().with_key_points(ticks))
        } else {
            draw(area, chart, &curves, x, y)
        }
    })?;
    canvas::save(path, &image)
}

fn draw<Y>(
    area: &Area<'_>,
    chart: &CurveChart,
    curves: &[(&str, Vec<(f64, f64)>)],
    x: Range<f64>,
    y: Y,
) -> Result<(), Box<dyn std::error::Error>>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let below = canvas::draw_head(area, &chart.title, curves.iter().map(|(name, _)| *name))?;
    let mut context = ChartBuilder::on(&below)
        .margin(20)
        .margin_right(40)
        .x_label_area_size(60)
        .y_label_area_size(100)
        .build_cartesian_2d(x, y)?;
    context
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID_COLOUR)
        .axis_style(canvas::TEXT_COLOUR)
        .x_desc("step")
        .y_desc(&chart.y_label)
        .x_label_formatter(&|step| format!("{step:.0}"))
        .y_label_formatter(&|value| tick(*value))
        .label_style(text(LABEL_SIZE))
        .axis_desc_style(text(LABEL_SIZE))
        .draw()?;
    for (index, (_, points)) in curves.iter().enumerate() {
        let colour = PALETTE[index % PALETTE.len()];
        let line = if points.len() > MAX_RAW_POINTS {
            context.draw_series(LineSeries::new(points.iter().copied(), colour.mix(0.25)))?;
            smooth(points)
        } else {
            points.clone()
        };
        context.draw_series(LineSeries::new(line, colour.stroke_width(3)))?;
        if points.len() <= MAX_DOTS {
            context.draw_series(points.iter().map(|&point| Circle::new(point, 4, colour.filled())))?;
        }
    }
    Ok(())
}

fn drawable(curve: &Curve, log_y: bool) -> Vec<(f64, f64)> {
    let points = curve.points.iter().map(|&(step, value)| (step as f64, value));
    points.filter(|(_, value)| value.is_finite() && (!log_y || *value > 0.0)).collect()
}

/// From the smallest to the largest value, widened by `margin` of that on both sides; never empty.
fn span(values: impl Iterator<Item = f64>, margin: f64, is_log: bool) -> Range<f64> {
    let (low, high) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if is_log {
        let factor = (high / low).powf(margin).max(1.05);
        return low / factor..high * factor;
    }
    let width = if high > low { (high - low) * margin } else { high.abs().max(1.0) * 0.5 };
    low - width..high + width
}

/// Centred moving average.
fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let half = ((points.len() as f64 * SMOOTHING_FRACTION / 2.0).ceil() as usize).max(1);
    let mean_around = |index: usize| {
        let reach = half.min(index).min(points.len() - 1 - index);
        let window = &points[index - reach..=index + reach];
        window.iter().map(|point| point.1).sum::<f64>() / window.len() as f64
    };
    points.iter().enumerate().map(|(index, point)| (point.0, mean_around(index))).collect()
}

/// 1, 2 and 5 times each power of ten within `range`; the powers alone where that is plenty.
fn log_ticks(range: &Range<f64>) -> Vec<f64> {
    let powers = range.start.log10().floor() as i32..=range.end.log10().ceil() as i32;
    let ticks = |factors: &'static [f64]| -> Vec<f64> {
        let all = powers.clone().flat_map(|power| factors.iter().map(move |factor| factor * 10f64.powi(power)));
        all.filter(|tick| range.contains(tick)).collect()
    };
    let fine = ticks(&[1.0, 2.0, 5.0]);
    if fine.len() > MAX_LOG_TICKS { ticks(&[1.0]) } else { fine }
}
