//! Curves over training steps.

use super::{
    axes::{Axis, bounds, draw_axes, span},
    canvas::{self, Area, DrawError, HEIGHT, WIDTH, plot_error, tick},
};
use crate::{
    Result,
    metrics::{MetricSpec, MetricsRow, series},
};
use image::RgbImage;
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
    /// (step, lowest, highest): an area around the curve, such as that of several seeds; empty for none.
    pub band: Vec<(u64, f64, f64)>,
}

impl Curve {
    /// A curve without a band.
    pub fn new(name: impl Into<String>, points: Vec<(u64, f64)>) -> Self {
        Self { name: name.into(), points, band: Vec::new() }
    }
}

/// Several curves over one axis of steps.
#[derive(Debug, Clone, PartialEq)]
pub struct CurveChart {
    /// Above the chart.
    pub title: String,
    /// Beside the vertical axis.
    pub y_label: String,
    /// Logarithmic horizontal axis; step 0 is then left out.
    pub log_x: bool,
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
        let curve = Curve::new(spec.title(), series(rows, &spec.name));
        if Drawn::of(&curve, false, plot.log).points.is_empty() {
            continue;
        }
        let path = plots.join(&plot.file);
        match charts.iter_mut().find(|(known, _)| *known == path) {
            Some((_, chart)) => chart.curves.push(curve),
            None => {
                let (title, y_label) = (plot.title.clone(), plot.y_label.clone());
                charts.push((path, CurveChart { title, y_label, log_x: false, log_y: plot.log, curves: vec![curve] }));
            }
        }
    }
    charts.into_iter().map(|(path, chart)| draw_curves(&path, &chart).map(|()| path)).collect()
}

/// Writes `chart` to the PNG file `path`.
///
/// # Errors
/// As [`render_curves`], or the file cannot be written.
pub fn draw_curves(path: &Path, chart: &CurveChart) -> Result<()> {
    canvas::save(path, &render_curves(&path.display().to_string(), chart)?)
}

/// Draws `chart`; `name` is for errors. More curves than fit two lines of the legend make the image higher.
///
/// # Errors
/// No curve has a point that can be drawn.
pub fn render_curves(name: &str, chart: &CurveChart) -> Result<RgbImage> {
    let curves: Vec<Drawn<'_>> = chart.curves.iter().map(|curve| Drawn::of(curve, chart.log_x, chart.log_y)).collect();
    let all = || curves.iter().flat_map(|curve| curve.points.iter());
    if all().next().is_none() {
        return Err(plot_error(name, "no curve has a finite value for these axes"));
    }
    let bands = || curves.iter().flat_map(|curve| curve.band.iter());
    let heights = all().map(|point| point.1).chain(bands().flat_map(|&(_, low, high)| [low, high]));
    let x = span_of(all().map(|point| point.0), 0.0, chart.log_x);
    let y = span_of(heights, 0.05, chart.log_y);
    let height = HEIGHT + canvas::extra_height(name, curves.iter().map(|curve| curve.name))?;
    canvas::render(name, (WIDTH, height), |area| {
        let is_log = |wanted: bool, range: &Range<f64>| wanted && log_ticks(range).len() >= MIN_LOG_TICKS;
        let log = |range: Range<f64>| {
            let ticks = log_ticks(&range);
            range.log_scale().with_key_points(ticks)
        };
        match (is_log(chart.log_x, &x), is_log(chart.log_y, &y)) {
            (true, true) => draw(area, chart, &curves, log(x), log(y)),
            (true, false) => draw(area, chart, &curves, log(x), y),
            (false, true) => draw(area, chart, &curves, x, log(y)),
            (false, false) => draw(area, chart, &curves, x, y),
        }
    })
}

fn draw<X, Y>(area: &Area<'_>, chart: &CurveChart, curves: &[Drawn<'_>], x: X, y: Y) -> Result<(), DrawError>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let below = canvas::draw_head(area, &chart.title, curves.iter().map(|curve| curve.name))?;
    let x = Axis { range: x, label: "step", tick: &|step| format!("{step:.0}") };
    let y = Axis { range: y, label: &chart.y_label, tick: &|value| tick(*value) };
    let mut context = draw_axes(&below, x, y)?;
    for (index, curve) in curves.iter().enumerate().filter(|(_, curve)| !curve.band.is_empty()) {
        let upper = curve.band.iter().map(|&(step, _, high)| (step, high));
        let lower = curve.band.iter().rev().map(|&(step, low, _)| (step, low));
        let outline: Vec<(f64, f64)> = upper.chain(lower).collect();
        context.draw_series([Polygon::new(outline, canvas::colour(index).mix(0.2))])?;
    }
    for (index, curve) in curves.iter().enumerate() {
        let (colour, points) = (canvas::colour(index), &curve.points);
        let line = if points.len() > MAX_RAW_POINTS {
            if curve.band.is_empty() {
                context.draw_series(LineSeries::new(points.iter().copied(), colour.mix(0.25)))?;
            }
            smooth(points)
        } else {
            points.clone()
        };
        match canvas::dashes(index) {
            None => context.draw_series(LineSeries::new(line, colour.stroke_width(3)))?,
            Some((length, gap)) => {
                context.draw_series(DashedLineSeries::new(line, length, gap, colour.stroke_width(3)))?
            }
        };
        if points.len() <= MAX_DOTS {
            context.draw_series(points.iter().map(|&point| Circle::new(point, 4, colour.filled())))?;
        }
    }
    Ok(())
}

/// What can be drawn of a curve.
struct Drawn<'a> {
    name: &'a str,
    points: Vec<(f64, f64)>,
    band: Vec<(f64, f64, f64)>,
}

impl<'a> Drawn<'a> {
    fn of(curve: &'a Curve, log_x: bool, log_y: bool) -> Self {
        let fits = |step: u64, value: f64| value.is_finite() && (!log_y || value > 0.0) && (!log_x || step > 0);
        let points = curve.points.iter().filter(|(step, value)| fits(*step, *value));
        let band = curve.band.iter().filter(|(step, low, high)| fits(*step, *low) && fits(*step, *high));
        Self {
            name: &curve.name,
            points: points.map(|&(step, value)| (step as f64, value)).collect(),
            band: band.map(|&(step, low, high)| (step as f64, low, high)).collect(),
        }
    }
}

/// As [`span`]; a logarithmic axis is widened by a factor.
fn span_of(values: impl Iterator<Item = f64>, margin: f64, is_log: bool) -> Range<f64> {
    if !is_log {
        return span(values, margin);
    }
    let (low, high) = bounds(values);
    let factor = (high / low).powf(margin).max(1.05);
    low / factor..high * factor
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
