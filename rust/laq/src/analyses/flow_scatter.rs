//! Analysis 1: the motion of the samples in the plane, coloured by their sequence of codes.

use super::Scene;
use super::collect::Record;
use super::output::Output;
use hlrp_track::plot::{PointChart, PointGroup, RgbImage, render_points};

pub(super) fn run(scene: &Scene<'_>, output: &mut Output) -> anyhow::Result<()> {
    let moving: Vec<&Record> = scene.collected.records.iter().filter(|record| !record.is_static).collect();
    if moving.is_empty() {
        output.note("nothing moves in any sample");
        return Ok(());
    }
    output.image("flow_scatter_combined", &chart(scene, "all datasets", &moving)?)?;
    for source in super::sources(scene.collected) {
        let own: Vec<&Record> = moving.iter().copied().filter(|record| record.source == source).collect();
        if !own.is_empty() {
            output.image(&format!("flow_scatter_{source}"), &chart(scene, source, &own)?)?;
        }
    }
    Ok(())
}

fn chart(scene: &Scene<'_>, what: &str, records: &[&Record]) -> anyhow::Result<RgbImage> {
    // The image's y axis points down; up in the plot is up in the image.
    let place = |record: &&Record| (record.motion.0, -record.motion.1);
    let shown = &scene.inspected[..scene.config.top_k_sequences.min(scene.inspected.len())];
    let group = |codes: &[i64], name: &str| {
        let points: Vec<_> = records.iter().filter(|record| record.codes == codes).map(place).collect();
        PointGroup { name: format!("{name} ({})", points.len()), points }
    };
    let is_shown = |record: &&&Record| shown.iter().any(|sequence| sequence.codes == record.codes);
    let chart = PointChart {
        title: format!("Motion by sequence of codes: {what}"),
        x_label: "mean dx in pixels, to the right".into(),
        y_label: "mean dy in pixels, upwards".into(),
        groups: shown.iter().map(|sequence| group(&sequence.codes, &sequence.name)).collect(),
        rest: records.iter().filter(|record| !is_shown(record)).map(place).collect(),
        equal_axes: true,
        from_origin: false,
    };
    Ok(render_points(what, &chart)?)
}
