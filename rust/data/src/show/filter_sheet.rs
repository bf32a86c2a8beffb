//! What a filter keeps and drops: a chart of the scores of each episode above images at their times.

use super::canvas::{Canvas, GAP, GLYPH, LABEL_LETTERS, LABEL_WIDTH, TITLE_HEIGHT};
use crate::error::DataError;
use crate::filter::Verdict;
use crate::formats::Dataset;
use crate::frames::FrameSize;
use hlrp_schema::FilterConfig;
use image::Rgb;
use image::RgbImage;
use std::sync::Arc;

/// Pixels of a chart.
const CHART: [u32; 2] = [880, 96];
/// Height of an image.
const THUMB_HEIGHT: usize = 66;
/// Background of what is kept and dropped, the curves, and the thresholds.
const KEPT: Rgb<u8> = Rgb([226, 244, 226]);
const DROPPED: Rgb<u8> = Rgb([248, 208, 204]);
const MOTION: Rgb<u8> = Rgb([24, 72, 184]);
const ACTION: Rgb<u8> = Rgb([216, 120, 0]);
const THRESHOLD: Rgb<u8> = Rgb([120, 120, 120]);

/// Draws the verdicts of some episodes, with images of `camera`; `name` is the title.
///
/// # Errors
/// When an image cannot be read.
pub fn filter_sheet(
    dataset: &Arc<dyn Dataset>,
    camera: &str,
    name: &str,
    verdicts: &[Verdict],
    config: &FilterConfig,
) -> Result<RgbImage, DataError> {
    let native = dataset.describe().features.get(camera).and_then(|feature| feature.frame_size());
    let width = native.map_or(THUMB_HEIGHT, |size| (size.width * THUMB_HEIGHT / size.height).max(1));
    let thumb = FrameSize { height: THUMB_HEIGHT, width };
    let line_height = CHART[1] + THUMB_HEIGHT as u32 + 3 * GAP;
    let mut canvas = Canvas::new(LABEL_WIDTH + CHART[0] + 2 * GAP, TITLE_HEIGHT + verdicts.len() as u32 * line_height);
    canvas.text(8, 6, 2, name);
    let colors = "motion blue, action orange, each to its largest score; thresholds grey; dropped red";
    canvas.text(8, 28, 1, colors);
    let frames = Arc::clone(dataset).frame_store(camera, Some(thumb))?;
    let mut reader = frames.reader(2)?;
    for (verdict, y) in verdicts.iter().zip((TITLE_HEIGHT..).step_by(line_height as usize)) {
        let span = verdict.span;
        canvas.text(8, y, 1, &format!("episode {}", span.episode));
        canvas.text(8, y + 12, 1, &format!("{} of {} kept", verdict.counts.num_kept, verdict.counts.num_anchors));
        canvas.paragraph(8, y + 30, LABEL_LETTERS, 8, &dataset.task(span.from_row)?);
        background(&mut canvas, y, verdict);
        let thresholds = [config.motion.low, config.motion.high];
        curve(&mut canvas, y, verdict.motion.as_deref(), &thresholds, MOTION);
        curve(&mut canvas, y, verdict.action.as_deref(), &[config.action.threshold], ACTION);
        let num_thumbs = (CHART[0] / (width as u32 + GAP)).max(1);
        let row = |nth: u32| span.from_row + u64::from(nth) * verdict.counts.num_anchors / u64::from(num_thumbs);
        let rows: Vec<u64> = (0..num_thumbs).map(|nth| row(nth).min(span.to_row - 1)).collect();
        let mut pixels_TCHW = vec![0; rows.len() * thumb.frame_bytes()];
        reader.read(&rows, &mut pixels_TCHW)?;
        for (nth, pixels_CHW) in (0..num_thumbs).zip(pixels_TCHW.chunks_exact(thumb.frame_bytes())) {
            let x = LABEL_WIDTH + nth * CHART[0] / num_thumbs;
            canvas.paste(x, y + CHART[1] + GAP, width as u32, THUMB_HEIGHT as u32, pixels_CHW);
        }
    }
    Ok(canvas.into_image())
}

/// The anchors that a column of the chart shows: at least one.
fn anchors_at(column: u32, num_anchors: usize) -> std::ops::Range<usize> {
    let at = |column: u32| column as usize * num_anchors / CHART[0] as usize;
    at(column)..at(column + 1).max(at(column) + 1)
}

fn background(canvas: &mut Canvas, y: u32, verdict: &Verdict) {
    for column in 0..CHART[0] {
        let anchors = anchors_at(column, verdict.is_kept.len());
        let color = if verdict.is_kept[anchors].iter().all(|is_kept| *is_kept) { KEPT } else { DROPPED };
        canvas.column(LABEL_WIDTH + column, y..y + CHART[1], color);
    }
}

/// Scores from 0 at the bottom to the largest, or the largest threshold, at the top.
fn curve(canvas: &mut Canvas, y: u32, scores: Option<&[f32]>, thresholds: &[f64], color: Rgb<u8>) {
    let Some(scores) = scores else { return };
    let largest = scores.iter().copied().fold(0.0, f32::max);
    let top = thresholds.iter().fold(f64::from(largest), |top, threshold| top.max(*threshold)).max(1e-9);
    let height = |score: f64| y + CHART[1] - 1 - (score / top * f64::from(CHART[1] - 1)) as u32;
    for threshold in thresholds {
        for column in (0..CHART[0]).filter(|column| column % 8 < 4) {
            let at = height(*threshold);
            canvas.column(LABEL_WIDTH + column, at..at + 1, THRESHOLD);
        }
    }
    let mut before = None;
    for column in 0..CHART[0] {
        let of_column = &scores[anchors_at(column, scores.len())];
        let at = height(f64::from(of_column.iter().copied().fold(0.0, f32::max)));
        let from = before.unwrap_or(at);
        canvas.column(LABEL_WIDTH + column, at.min(from)..at.max(from) + 1, color);
        before = Some(at);
    }
    let text = format!("{largest:.3}");
    let x = LABEL_WIDTH + CHART[0] - (text.len() as u32 + 1) * GLYPH;
    canvas.text(x, if color == MOTION { y + 2 } else { y + 14 }, 1, &text);
}
