//! Pictures: they have text without any font of the system, and show what they are given.
#![allow(clippy::unwrap_used, non_snake_case)] // a failed unwrap is a failed test; names of buffers carry their shape

use hlrp_track::metrics::{self, MetricSpec};
use hlrp_track::plot::{
    BarChart, Curve, CurveChart, GridImage, Heatmap, ImageGrid, PanelGrid, PanelLine, PointChart, PointGroup,
    draw_bars, draw_curves, draw_grid, draw_metrics, draw_panels, render_bars, render_heatmap, render_points,
};
use image::{Rgb, RgbImage};
use std::path::Path;

/// Number of dark pixels, as text and axes have them.
fn num_dark(picture: &RgbImage, rows: std::ops::Range<u32>) -> usize {
    picture
        .enumerate_pixels()
        .filter(|(_, y, pixel)| rows.contains(y) && pixel.0.iter().all(|&value| value < 110))
        .count()
}

fn open(path: &Path) -> RgbImage {
    image::open(path).unwrap().to_rgb8()
}

fn loss_chart(title: &str) -> CurveChart {
    let train = (0..1500u64).map(|step| {
        let wiggle = ((step * 7919) % 101) as f64 / 101.0 - 0.5;
        (step, 0.08 * (-(step as f64) / 400.0).exp() + 0.02 + 0.006 * wiggle)
    });
    let val = (0..=6u64).map(|index| (index * 250, 0.085 * (-(index as f64) * 250.0 / 400.0).exp() + 0.022));
    CurveChart {
        title: title.into(),
        y_label: "pixel loss".into(),
        log_x: false,
        log_y: true,
        curves: vec![Curve::new("train/loss", train.collect()), Curve::new("val/loss", val.collect())],
    }
}

#[test]
fn curves_have_a_title_and_colours() {
    let dir = tempfile::tempdir().unwrap();
    let [with, without] = ["with.png", "without.png"].map(|name| dir.path().join(name));
    draw_curves(&with, &loss_chart("Loss")).unwrap();
    draw_curves(&without, &loss_chart("")).unwrap();
    let (with, without) = (open(&with), open(&without));
    assert!(num_dark(&with, 0..60) > 50, "the title is drawn");
    assert_eq!(num_dark(&without, 0..40), 0, "nothing else is there");
    assert!(with.pixels().any(|pixel| *pixel == Rgb([0, 114, 178])), "the first curve's colour");
    assert!(with.pixels().any(|pixel| *pixel == Rgb([213, 94, 0])), "the second curve's colour");
}

#[test]
fn nothing_covers_a_rising_curve() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("codes.png");
    let rising = |name: &str, top: f64| Curve::new(name, vec![(0, 0.0), (450, top)]);
    let names = ["train/num_unique_codes", "train/codebook_window_perplexity", "val/num_unique_codes"];
    let curves = names.iter().zip([8.0, 7.5, 7.0]).map(|(name, top)| rising(name, top)).collect();
    draw_curves(
        &path,
        &CurveChart { title: "Codes".into(), y_label: "codes".into(), log_x: false, log_y: false, curves },
    )
    .unwrap();
    let picture = open(&path);
    for colour in [Rgb([0, 114, 178]), Rgb([213, 94, 0]), Rgb([0, 158, 115])] {
        let columns = (200..1140u32).filter(|&x| (130..640).any(|y| *picture.get_pixel(x, y) == colour));
        assert_eq!(columns.count(), 940, "the curve shows in every column of the chart");
    }
}

#[test]
fn curves_without_a_finite_value_are_an_error_and_leave_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("loss.png");
    let curves = vec![Curve::new("loss", vec![(1, f64::NAN)])];
    let chart = CurveChart { title: String::new(), y_label: "loss".into(), log_x: false, log_y: false, curves };
    let error = draw_curves(&path, &chart).unwrap_err().to_string();
    assert!(error.contains("loss.png") && error.contains("no curve has a finite value"), "{error}");
    assert!(!path.exists());
    let declared = MetricSpec::detail("train/loss").drawn_in(&metrics::Curve::new("loss.png", "", ""));
    assert!(draw_metrics(dir.path(), &[], &[declared]).unwrap().is_empty(), "no metric, no image, no error");
}

#[test]
fn one_point_and_equal_values_can_be_drawn() {
    let dir = tempfile::tempdir().unwrap();
    for log_y in [false, true] {
        for points in [vec![(5, 1.0)], vec![(5, 1.0), (6, 1.0)]] {
            let curves = vec![Curve::new("loss", points)];
            let chart = CurveChart { title: "t".into(), y_label: "y".into(), log_x: false, log_y, curves };
            draw_curves(&dir.path().join("loss.png"), &chart).unwrap();
        }
    }
}

#[test]
fn bars_are_as_high_as_their_values() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("codes.png");
    let values = vec![0.2, 0.1, 0.05, 0.25, 0.0, 0.1, 0.2, 0.1];
    let chart = BarChart {
        title: "Codes in use: 7 of 8".into(),
        x_label: "code".into(),
        y_label: "share of assignments".into(),
        values,
        names: Vec::new(),
        reference: Some(("uniform".into(), 0.125)),
    };
    draw_bars(&path, &chart).unwrap();
    let picture = open(&path);
    let blue_in = |share: std::ops::Range<f64>| {
        let columns = 120.0..1160.0;
        let x = |share: f64| (columns.start + share * (columns.end - columns.start)) as u32;
        (x(share.start)..x(share.end))
            .map(|x| (0..picture.height()).filter(|&y| *picture.get_pixel(x, y) == Rgb([0, 114, 178])).count())
            .max()
            .unwrap()
    };
    let (first, second, empty) = (blue_in(0.03..0.1), blue_in(0.16..0.22), blue_in(0.53..0.6));
    assert!(first.abs_diff(2 * second) <= 8, "0.2 is twice 0.1: {first} and {second} pixels");
    assert!(empty <= 2, "a bar of height 0 is empty: {empty} pixels");

    let error = draw_bars(&path, &BarChart { values: vec![-1.0], ..chart }).unwrap_err();
    assert!(error.to_string().contains("none negative"), "{error}");
}

#[test]
fn bars_have_names() {
    let chart = |names: &[&str]| BarChart {
        title: "Most frequent sequences".into(),
        x_label: "sequence".into(),
        y_label: "samples".into(),
        values: vec![3.0, 2.0],
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        reference: None,
    };
    let [with, without] = [&["1-2-3-4", "5-6-7-0"][..], &[]].map(|names| render_bars("bars", &chart(names)).unwrap());
    assert!(
        num_dark(&with, 515..585) > num_dark(&without, 515..585) + 100,
        "the names are drawn upright below the axis"
    );
    let error = render_bars("bars", &chart(&["1"])).unwrap_err();
    assert!(error.to_string().contains("1 names for 2 bars"), "{error}");
}

/// Number of pixels of one colour, and the middle of them.
fn find(picture: &RgbImage, colour: [u8; 3]) -> (usize, (f64, f64)) {
    let found: Vec<_> = picture.enumerate_pixels().filter(|(.., pixel)| pixel.0 == colour).collect();
    let middle =
        |of: fn(&(u32, u32, &Rgb<u8>)) -> u32| found.iter().map(of).map(f64::from).sum::<f64>() / found.len() as f64;
    (found.len(), (middle(|found| found.0), middle(|found| found.1)))
}

#[test]
fn points_are_where_their_values_are() {
    let group = |name: &str, points: &[(f64, f64)]| PointGroup { name: name.into(), points: points.to_vec() };
    let chart = PointChart {
        title: "Actions by code".into(),
        x_label: "dx".into(),
        y_label: "dy".into(),
        groups: vec![group("right", &[(1.0, 0.0); 3]), group("left, above", &[(-1.0, 1.0), (f64::NAN, 0.0)])],
        rest: vec![(0.0, 0.5)],
        equal_axes: true,
        from_origin: false,
    };
    let picture = render_points("points", &chart).unwrap();
    let body = image::imageops::crop_imm(&picture, 0, 110, picture.width(), picture.height() - 110).to_image();
    let [right, left, rest] = [[0, 114, 178], [213, 94, 0], [205, 205, 205]].map(|colour| find(&body, colour));
    assert!(right.0 > 20 && left.0 > 20 && rest.0 > 10, "{right:?} {left:?} {rest:?}");
    let ((x_right, y_right), (x_left, y_left), (x_rest, y_rest)) = (right.1, left.1, rest.1);
    assert!(x_left < x_rest && x_rest < x_right && y_left < y_rest && y_rest < y_right, "y grows upwards");
    let (width, height) = (x_right - x_left, y_right - y_left);
    assert!((width / height / 2.0 - 1.0).abs() < 0.15, "2 units wide and 1 high: {width} and {height} pixels");

    let empty = PointChart { groups: vec![group("none", &[(f64::NAN, 0.0)])], rest: Vec::new(), ..chart };
    assert!(render_points("points", &empty).unwrap_err().to_string().contains("no finite point"));
}

#[test]
fn a_heatmap_is_darker_where_its_values_are_larger() {
    let cell = |shade: f64| (shade, format!("{shade}"));
    let map = Heatmap {
        title: "Sequences by dataset".into(),
        columns: vec!["bridge".into(), "rt1".into()],
        rows: vec!["1-2".into(), "3-4".into()],
        cells: vec![vec![cell(0.0), cell(1.0)], vec![cell(0.5), cell(0.25)]],
    };
    let picture = render_heatmap("map", &map).unwrap();
    let (full, (x, y)) = find(&picture, [0, 114, 178]);
    assert!(full > 1000 && x > f64::from(picture.width()) / 2.0, "the full cell is in the second column");
    assert!(y < f64::from(picture.height()) * 0.75, "and in the first row");
    let ragged = Heatmap { cells: vec![vec![cell(0.0)]], ..map };
    assert!(render_heatmap("map", &ragged).unwrap_err().to_string().contains("rows and columns"));
}

#[test]
fn a_grid_shows_every_image_enlarged_without_blur() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("reconstructions.png");
    let frame_HWC = |seed: u8| -> Vec<u8> { (0..64 * 64 * 3).map(|index| (index as u8).wrapping_mul(seed)).collect() };
    let frames: Vec<Vec<u8>> = (1..=9).map(frame_HWC).collect();
    let image = |index: usize| GridImage { width: 64, height: 64, rgb_HWC: &frames[index] };
    let grid = ImageGrid {
        title: "Reconstructions after step 2000".into(),
        column_titles: ["frame t", "frame t+5", "prediction"].map(Into::into).into(),
        row_labels: vec!["reach-v3\nepisode 3, frame 12".into(), "push-v3\nepisode 14, frame 40".into(), "door".into()],
        rows: (0..3).map(|row| (0..3).map(|column| image(row * 3 + column)).collect()).collect(),
    };
    draw_grid(&path, &grid).unwrap();
    let picture = open(&path);
    // The last image fills the lower right corner, 16 pixels from the borders, each of its pixels 2 x 2.
    let (right, bottom) = (picture.width() - 16, picture.height() - 16);
    for (x, y) in [(0, 0), (63, 63), (17, 40)] {
        let at = (y * 64 + x) * 3;
        let want = Rgb([frames[8][at], frames[8][at + 1], frames[8][at + 2]]);
        for (dx, dy) in [(0, 0), (1, 1)] {
            let got = picture.get_pixel(right - 128 + 2 * x as u32 + dx, bottom - 128 + 2 * y as u32 + dy);
            assert_eq!(*got, want, "pixel {x}, {y}");
        }
    }
    assert!(num_dark(&picture, 0..50) > 50, "the title is drawn");
}

#[test]
fn a_column_of_a_grid_is_as_wide_as_its_title() {
    let pixels = [0; 64 * 64 * 3];
    let image = GridImage { width: 64, height: 64, rgb_HWC: &pixels };
    let draw = |titles: [&str; 2]| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("grid.png");
        let column_titles = titles.map(Into::into).into();
        draw_grid(&path, &ImageGrid { rows: vec![vec![image, image]], column_titles, ..Default::default() }).unwrap();
        open(&path)
    };
    let long = "frame t + predicted difference";
    let (narrow, wide) = (draw(["frame t", "frame t+k"]), draw([long, long]));
    assert_eq!(narrow.width(), 2 * 16 + 2 * 128 + 8);
    assert!(wide.width() > narrow.width());
    let is_dark = |x: u32, y: u32| wide.get_pixel(x, y).0.iter().all(|value| *value < 128);
    let in_margins = |x: &u32| *x < 12 || *x >= wide.width() - 12;
    let heading = 16..16 + 40;
    assert!((0..wide.width()).filter(in_margins).all(|x| heading.clone().all(|y| !is_dark(x, y))), "no title is cut");
    let middle = wide.width() / 2;
    assert!((middle - 3..middle + 3).all(|x| heading.clone().all(|y| !is_dark(x, y))), "titles do not touch");
}

#[test]
fn a_grid_that_does_not_fit_together_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("grid.png");
    let pixels = [0; 12];
    let image = GridImage { width: 2, height: 2, rgb_HWC: &pixels };
    let draw = |grid: ImageGrid<'_>| draw_grid(&path, &grid).unwrap_err().to_string();
    let rows = vec![vec![image, image], vec![image]];
    assert!(draw(ImageGrid { rows, ..Default::default() }).contains("row 1 holds 1 images"));
    let rows = vec![vec![GridImage { width: 3, ..image }]];
    assert!(draw(ImageGrid { rows, ..Default::default() }).contains("12 bytes; 3x2 RGB has 18"));
    let column_titles = vec!["a".into(), "b".into()];
    assert!(
        draw(ImageGrid { rows: vec![vec![image]], column_titles, ..Default::default() })
            .contains("2 column titles for 1")
    );
    assert!(draw(ImageGrid::default()).contains("no image"));
}

#[test]
fn panels_show_every_line_in_every_chart_and_refuse_a_line_that_lacks_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("panels.png");
    let line = |name: &str, height: f64| PanelLine {
        name: name.into(),
        // The last step has no value.
        values: vec![vec![vec![height, height + 1.0, f64::NAN]; 2]; 2],
    };
    let mut grid = PanelGrid {
        title: "Chunks".into(),
        x_label: "frames".into(),
        column_titles: vec!["dx".into(), "dy".into()],
        row_labels: vec!["open\nthe drawer".into(), "push".into()],
        lines: vec![line("true", 0.0), line("predicted", 2.0)],
    };
    draw_panels(&path, &grid).unwrap();
    let picture = open(&path);
    let (width, height) = picture.dimensions();
    for colour in [Rgb([0, 114, 178]), Rgb([213, 94, 0])] {
        let has = |x: std::ops::Range<u32>, y: std::ops::Range<u32>| {
            picture.enumerate_pixels().any(|(px, py, pixel)| *pixel == colour && x.contains(&px) && y.contains(&py))
        };
        // Below the legend: the lower half of the picture holds the second row, its right half the second column.
        assert!(has(width / 2..width, height / 2..height), "the lower right chart lacks {colour:?}");
        assert!(has(0..width * 6 / 10, height / 2..height), "the lower left chart lacks {colour:?}");
    }
    grid.lines[1].values[0].pop();
    assert!(draw_panels(&path, &grid).unwrap_err().to_string().contains("panels.png"));
}
