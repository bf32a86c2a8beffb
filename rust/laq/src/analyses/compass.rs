//! Analysis 6: the mean motion of each inspected sequence, as it is and with the mean of each dataset removed.

use super::Scene;
use super::motion::{Motion, baselines, raw_and_centred};
use super::output::Output;
use hlrp_track::plot::{PointChart, PointGroup, render_points};
use hlrp_track::table::ResultTable;

/// Name and samples of a sequence, its mean motion as it is and centred.
type MeanMotion = (String, usize, Motion, Motion);

/// File name and title of a plot, and what it shows of a sequence.
type Kind = (&'static str, &'static str, fn(&MeanMotion) -> Motion);

pub(super) fn run(scene: &Scene<'_>, output: &mut Output) -> anyhow::Result<()> {
    let baselines = baselines(&scene.collected.records);
    let row = |name: &str, motion: &Motion| {
        let numbers = [motion.dx, motion.dy, motion.angle().to_degrees(), motion.length()];
        std::iter::once(name.to_owned()).chain(numbers.map(|number| number.to_string())).collect::<Vec<_>>()
    };
    let columns = ["dataset", "mean_dx", "mean_dy", "angle_deg", "magnitude"].map(str::to_owned);
    let rows: Vec<_> = baselines.iter().map(|(source, motion)| row(source, motion)).collect();
    output.csv("dataset_baseline", &columns, &rows)?;

    let mut found: Vec<MeanMotion> = Vec::new();
    for sequence in &scene.inspected {
        let records: Vec<_> = scene.records_of(&sequence.codes).collect();
        if records.len() < scene.config.min_compass_samples {
            continue;
        }
        if let Some((raw, centred)) = raw_and_centred(records.iter().copied(), &baselines) {
            found.push((sequence.name.clone(), records.len(), raw, centred));
        }
    }
    let columns = [
        "sequence",
        "n",
        "raw_dx",
        "raw_dy",
        "raw_angle_deg",
        "raw_magnitude",
        "centred_dx",
        "centred_dy",
        "centred_angle_deg",
        "centred_magnitude",
    ];
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|(name, n, raw, centred)| {
            let numbers = [raw, centred].into_iter().flat_map(|motion| row("", motion).into_iter().skip(1));
            [name.clone(), n.to_string()].into_iter().chain(numbers).collect()
        })
        .collect();
    output.csv("compass_data", &columns.map(str::to_owned), &rows)?;
    output.readme(
        "Mean motion in pixels of each inspected sequence with enough samples: raw, and centred, which is with the mean motion of each \
         sample's dataset removed. Angles count from the right, clockwise, because y points down in an image; plots point up.",
    )?;
    if found.is_empty() {
        output.note(format!("no inspected sequence has {} samples", scene.config.min_compass_samples));
        return Ok(());
    }
    let mut table = ResultTable::new(["sequence", "samples", "raw dx, dy", "centred dx, dy", "centred length"]);
    for (name, n, raw, centred) in &found {
        let pair = |motion: &Motion| format!("{:.2}, {:.2}", motion.dx, motion.dy);
        table = table.row([name.clone(), n.to_string(), pair(raw), pair(centred), format!("{:.2}", centred.length())]);
    }
    output.table(table);
    let kinds: [Kind; 2] = [
        ("compass", "Mean motion of each sequence", |found| found.2),
        ("compass_centred", "Mean motion of each sequence, less that of its datasets", |found| found.3),
    ];
    for (name, title, motion) in kinds {
        let group = |sequence: &MeanMotion| PointGroup {
            name: sequence.0.clone(),
            points: vec![(motion(sequence).dx, -motion(sequence).dy)],
        };
        let chart = PointChart {
            title: title.into(),
            x_label: "mean dx in pixels, to the right".into(),
            y_label: "mean dy in pixels, upwards".into(),
            groups: found.iter().map(group).collect(),
            equal_axes: true,
            from_origin: true,
            ..PointChart::default()
        };
        output.image(name, &render_points(name, &chart)?)?;
    }
    Ok(())
}
