//! Analysis 4: a sequence of codes decoded on the first frames of other pairs.

use super::collect::{Visual, frames_of, tokens_of};
use super::examples::{place, rows};
use super::output::Output;
use super::{Inspected, Scene, sources};
use crate::decoders::flow_colors;
use crate::validation::{Row, frame_image};
use tch::{Kind, Tensor};

/// Targets of a sequence, and of each dataset.
const MAX_TARGETS: usize = 8;
const MAX_OF_DATASET: usize = 2;
const COLUMNS: [&str; 4] = ["target t", "target t+k", "decoded", "flow to decoded"];

pub(super) fn run(scene: &Scene<'_>, output: &mut Output) -> anyhow::Result<()> {
    for sequence in scene.inspected.iter().take(scene.config.top_k_transfer) {
        let Some(source) = moving_most(scene, sequence) else { continue };
        let title = format!("Where sequence {} comes from", sequence.name);
        let columns = ["frame t", "frame t+k", "flow"];
        output.rows(&format!("source_gt_flow_{}", sequence.name), &title, &columns, &rows(scene, &[source])?)?;
        let targets = targets(scene, sequence, MAX_OF_DATASET, MAX_TARGETS);
        let Some(decoded) = decoded(scene, sequence, &targets)? else {
            output.note("no decoder predicts a frame");
            return Ok(());
        };
        let title = format!("Sequence {} decoded on other images", sequence.name);
        output.rows(&format!("transfer_seq_{}", sequence.name), &title, &COLUMNS, &decoded)?;
    }
    Ok(())
}

/// The pair of a sequence with the largest mean difference between its frames.
fn moving_most<'a>(scene: &'a Scene<'_>, sequence: &Inspected) -> Option<&'a Visual> {
    let difference = |visual: &Visual| {
        let frames = visual.pixels_TCHW.to_kind(Kind::Float);
        (frames.select(0, 1) - frames.select(0, 0)).abs().mean(Kind::Float).double_value(&[])
    };
    let own = scene.collected.visuals.iter().filter(|visual| visual.record.codes == sequence.codes);
    own.map(|visual| (difference(visual), visual)).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, visual)| visual)
}

/// Pairs of other sequences: up to `num_each` of each dataset, `num` in all.
pub(super) fn targets<'a>(scene: &'a Scene<'_>, sequence: &Inspected, num_each: usize, num: usize) -> Vec<&'a Visual> {
    let others = |source: &str| {
        let source = source.to_owned();
        let visuals = scene.collected.visuals.iter();
        visuals
            .filter(move |visual| visual.record.source == source && visual.record.codes != sequence.codes)
            .take(num_each)
    };
    sources(scene.collected).into_iter().flat_map(others).take(num).collect()
}

/// Targets beside what the sequence makes of their first frames; none where no decoder predicts a frame.
pub(super) fn decoded(
    scene: &Scene<'_>,
    sequence: &Inspected,
    targets: &[&Visual],
) -> anyhow::Result<Option<Vec<Row>>> {
    if targets.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let frames_NTCHW = frames_of(scene.model, targets);
    let tokens_NSD = tokens_of(scene.model, &vec![sequence.codes.as_slice(); targets.len()])?;
    let earlier_NCHW = frames_NTCHW.select(1, 0);
    let Some(decoded_NCHW) = scene.model.predicted_frame(&earlier_NCHW, &tokens_NSD) else { return Ok(None) };
    let colors_NCHW = flow_colors(&scene.flow(&Tensor::stack(&[&earlier_NCHW, &decoded_NCHW], 1)));
    let row = |(index, target): (usize, &&Visual)| {
        let index = index as i64;
        let columns = [&earlier_NCHW, &frames_NTCHW.select(1, 1), &decoded_NCHW, &colors_NCHW];
        let images = columns.iter().map(|images| frame_image(&images.select(0, index)));
        Ok(Row { label: place(target), images: images.collect::<anyhow::Result<_>>()? })
    };
    targets.iter().enumerate().map(row).collect::<anyhow::Result<_>>().map(Some)
}
