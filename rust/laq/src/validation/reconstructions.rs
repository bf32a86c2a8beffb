//! Frame pairs beside what the decoders predict.

use super::observed::Observed;
use super::pictures::{Row, both_frames, frame_image, label, render_rows};
use super::samples::KeyedSamples;
use super::{Found, Scene, Strategy};
use hlrp_schema::ReconstructionsConfig;
use hlrp_track::sinks::NamedImage;

/// A pair with the titles of its images.
type Shown = (Vec<&'static str>, Row);

struct Reconstructions {
    fixed: KeyedSamples<Shown>,
    random: KeyedSamples<Shown>,
    num_seen: usize,
}

/// Shows `num_fixed` pairs, the same at every validation, and others that `step` chooses.
pub(super) fn new(config: &ReconstructionsConfig, num_fixed: usize, step: u64) -> Box<dyn Strategy> {
    Box::new(Reconstructions {
        fixed: KeyedSamples::new(num_fixed, 0),
        random: KeyedSamples::new(config.num_random_samples, step.max(1)),
        num_seen: 0,
    })
}

impl Strategy for Reconstructions {
    fn observe(&mut self, batch: &Observed<'_>, chosen: &[usize]) -> anyhow::Result<()> {
        self.num_seen += chosen.len();
        for &index in chosen {
            self.fixed.offer(batch.meta(index), || shown(batch, index))?;
            self.random.offer(batch.meta(index), || shown(batch, index))?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>, scene: &Scene<'_>) -> anyhow::Result<Found> {
        if !scene.has_enough(self.num_seen)? {
            return Ok(Found::default());
        }
        let kinds = [(self.fixed, "Validation pairs", ""), (self.random, "Random validation pairs", "_random")];
        let mut found = Found::default();
        for (samples, title, suffix) in kinds {
            let (titles, rows): (Vec<_>, Vec<_>) = samples.take().into_iter().unzip();
            if let Some(titles) = titles.first() {
                let name = format!("{}{suffix}", scene.name);
                let image = render_rows(&name, format!("{title} after step {}", scene.step), titles, &rows)?;
                found.images.push(NamedImage { name, image });
            }
        }
        Ok(found)
    }
}

fn shown(batch: &Observed<'_>, index: usize) -> anyhow::Result<Shown> {
    let (mut titles, mut images) = (vec!["frame t", "frame t+k"], both_frames(batch, index)?);
    let earlier_BCHW = batch.frames_BTCHW.select(1, 0);
    for (name, prediction) in batch.step.predictions.iter() {
        let image = batch.model.decoders.get(name).and_then(|decoder| decoder.image(prediction, &earlier_BCHW));
        if let Some((title, image_BCHW)) = image {
            titles.push(title);
            images.push(frame_image(&image_BCHW.select(0, index as i64))?);
        }
    }
    Ok((titles, Row { label: label(batch.meta(index), batch.codes(index)), images }))
}
