//! Analysis 3: frame pairs of each inspected sequence, with the flow between them.

use super::Scene;
use super::collect::{Visual, frames_of};
use super::output::Output;
use crate::decoders::flow_colors;
use crate::validation::{Row, frame_image};

/// Inspected sequences with an image.
const MAX_SEQUENCES: usize = 12;
const COLUMNS: [&str; 3] = ["frame t", "frame t+k", "flow"];

pub(super) fn run(scene: &Scene<'_>, output: &mut Output) -> anyhow::Result<()> {
    for (rank, sequence) in scene.inspected.iter().enumerate().take(MAX_SEQUENCES) {
        let own = scene.collected.visuals.iter().filter(|visual| visual.record.codes == sequence.codes);
        let own: Vec<&Visual> = own.take(scene.config.examples_per_sequence).collect();
        let title = format!("Sequence {}: {} samples", sequence.name, sequence.total());
        let name = format!("seq_{rank:02}_{}", sequence.name);
        output.rows(&name, &title, &COLUMNS, &rows(scene, &own)?)?;
    }
    Ok(())
}

/// Both frames and the flow of pairs.
pub(super) fn rows(scene: &Scene<'_>, visuals: &[&Visual]) -> anyhow::Result<Vec<Row>> {
    if visuals.is_empty() {
        return Ok(Vec::new());
    }
    let frames_NTCHW = frames_of(scene.model, visuals);
    let colors_NCHW = flow_colors(&scene.flow(&frames_NTCHW));
    let row = |(index, visual): (usize, &&Visual)| {
        let index = index as i64;
        let frames_TCHW = frames_NTCHW.select(0, index);
        let images = [frames_TCHW.select(0, 0), frames_TCHW.select(0, 1), colors_NCHW.select(0, index)];
        let images = images.iter().map(frame_image).collect::<anyhow::Result<_>>()?;
        Ok(Row { label: place(visual), images })
    };
    visuals.iter().enumerate().map(row).collect()
}

/// Where a pair comes from.
pub(super) fn place(visual: &Visual) -> String {
    let record = &visual.record;
    format!("{}\nep {} frame {}", record.source, record.episode, record.frame)
}
