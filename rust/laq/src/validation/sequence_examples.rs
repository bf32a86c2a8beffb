//! Frame pairs of the most frequent sequences of codes.

use super::code_use::{CodeUse, sequence_name};
use super::observed::Observed;
use super::pictures::{FrameImage, Row, both_frames, render_rows};
use super::samples::KeyedSamples;
use super::{Found, Scene, Strategy};
use crate::model::LaqModel;
use hlrp_schema::SequenceExamplesConfig;

/// Pairs that are remembered for each that can be shown.
const RESERVE: usize = 8;

struct SequenceExamples {
    codes: CodeUse,
    samples: KeyedSamples<(Vec<i64>, Vec<FrameImage>)>,
    config: SequenceExamplesConfig,
}

/// None where the latent is continuous.
pub(super) fn new(config: &SequenceExamplesConfig, model: &LaqModel) -> Option<Box<dyn Strategy>> {
    let num_kept = RESERVE * config.num_sequences * config.num_examples;
    CodeUse::of(model).map(|codes| {
        let samples = KeyedSamples::new(num_kept, 0);
        Box::new(SequenceExamples { codes, samples, config: config.clone() }) as Box<dyn Strategy>
    })
}

impl Strategy for SequenceExamples {
    fn observe(&mut self, batch: &Observed<'_>, chosen: &[usize]) -> anyhow::Result<()> {
        for &index in chosen {
            self.codes.add(batch.codes(index));
            self.samples.offer(batch.meta(index), || Ok((batch.codes(index).to_vec(), both_frames(batch, index)?)))?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>, scene: &Scene<'_>) -> anyhow::Result<Found> {
        let Self { codes, samples, config } = *self;
        if !scene.has_enough(usize::try_from(codes.num_samples())?)? {
            return Ok(Found::default());
        }
        let codes = codes.of_all(scene.world)?;
        let samples = samples.take();
        let mut rows = Vec::new();
        for (ids, count) in codes.sequences().into_iter().take(config.num_sequences) {
            let of_sequence = samples.iter().filter(|(own, _)| *own == ids).take(config.num_examples);
            let mut images: Vec<FrameImage> = of_sequence.flat_map(|(_, frames)| frames.clone()).collect();
            let Some(blank) = images.first().map(FrameImage::blank) else { continue };
            images.resize(2 * config.num_examples, blank);
            rows.push(Row { label: format!("{}\n{count} samples", sequence_name(&ids)), images });
        }
        if rows.is_empty() {
            return Ok(Found::default());
        }
        let columns = ["frame t", "frame t+k"].repeat(config.num_examples);
        let title = format!("The most frequent sequences of codes after step {}", scene.step);
        Ok(Found { metrics: Vec::new(), images: vec![scene.image(render_rows(&scene.name, title, &columns, &rows)?)] })
    }
}
