//! Analysis 8: a folder for each of the first sequences.

use super::Scene;
use super::collect::Visual;
use super::examples::rows;
use super::flow_transfer::flows;
use super::motion::{Motion, baselines, raw_and_centred};
use super::output::Output;
use super::transfer::{decoded, targets};
use hlrp_track::plot::{PointChart, PointGroup, render_points};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Images that a sequence is decoded on.
const MAX_TARGETS: usize = 8;

pub(super) fn run(scene: &Scene<'_>, output: &mut Output) -> anyhow::Result<()> {
    let baselines = baselines(&scene.collected.records);
    let json_of = |motion: &Motion| json!({ "dx": motion.dx, "dy": motion.dy, "angle_deg": motion.angle().to_degrees(), "magnitude": motion.length() });
    let all: BTreeMap<&String, Value> = baselines.iter().map(|(source, motion)| (source, json_of(motion))).collect();
    output.json("dataset_baseline", &all)?;
    for (rank, sequence) in scene.inspected.iter().enumerate().take(scene.config.top_k_token_reports) {
        let folder = format!("token_{rank:02}_{}", sequence.name);
        let records: Vec<_> = scene.records_of(&sequence.codes).collect();
        let Some((raw, centred)) = raw_and_centred(records.iter().copied(), &baselines) else { continue };
        output.json(
            &format!("{folder}/summary"),
            &json!({
                "sequence": sequence.name,
                "total_n": records.len(),
                "per_dataset_counts": sequence.counts,
                "mean_shift": { "raw": json_of(&raw), "centred": json_of(&centred) },
            }),
        )?;
        let title = |what: &str| format!("Sequence {}: {what}", sequence.name);
        let num_each = scene.config.token_report_examples.div_ceil(sequence.counts.len().max(1));
        let own = |source: &str| -> Vec<&Visual> {
            let visuals = scene.collected.visuals.iter();
            visuals
                .filter(|visual| visual.record.source == source && visual.record.codes == sequence.codes)
                .take(num_each)
                .collect()
        };
        let mut samples: Vec<&Visual> = sequence.counts.keys().flat_map(|source| own(source)).collect();
        samples.truncate(scene.config.token_report_examples);
        let columns = ["frame t", "frame t+k", "flow"];
        output.rows(&format!("{folder}/samples"), &title("samples"), &columns, &rows(scene, &samples)?)?;
        let targets = targets(scene, sequence, scene.config.token_report_targets_per_dataset, MAX_TARGETS);
        let columns = ["target t", "target t+k", "decoded", "flow to decoded"];
        if let Some(rows) = decoded(scene, sequence, &targets)? {
            output.rows(&format!("{folder}/latent_transfer"), &title("decoded on other images"), &columns, &rows)?;
        }
        if let Some(rows) = flows(scene, sequence, &targets)? {
            let columns = ["frame t", "its own motion", "predicted"];
            output.rows(&format!("{folder}/flow_decoder"), &title("predicted motion"), &columns, &rows)?;
        }
        let point =
            |name: &str, motion: &Motion| PointGroup { name: name.into(), points: vec![(motion.dx, -motion.dy)] };
        let chart = PointChart {
            title: title("mean motion"),
            x_label: "dx in pixels, to the right".into(),
            y_label: "dy in pixels, upwards".into(),
            groups: vec![point("raw", &raw), point("less the mean of its datasets", &centred)],
            rest: records.iter().map(|record| (record.motion.0, -record.motion.1)).collect(),
            equal_axes: true,
            from_origin: true,
        };
        output.image(&format!("{folder}/mean_shift"), &render_points(&folder, &chart)?)?;
    }
    Ok(())
}
