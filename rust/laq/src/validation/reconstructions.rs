//! Frame pairs beside what the decoders predict.

use super::observed::Observed;
use super::pictures::{Row, both_frames, frame_image, label, render_rows};
use super::samples::KeyedSamples;
use super::training_pairs::TrainingPairs;
use super::{Found, Scene, Strategy};
use crate::data::pairs_of;
use crate::model::LaqModel;
use crate::step::eval_step;
use hlrp_schema::ReconstructionsConfig;
use hlrp_track::sinks::NamedImage;
use std::rc::Rc;

/// A pair with the titles of its images.
type Shown = (Vec<&'static str>, Row);

struct Reconstructions {
    fixed: KeyedSamples<Shown>,
    random: KeyedSamples<Shown>,
    num_seen: usize,
    /// Of the training episodes.
    training: KeyedSamples<Shown>,
    training_pairs: Option<Rc<TrainingPairs>>,
}

/// Shows `num_fixed` pairs, the same at every validation, others that `step` chooses, and some of `training_pairs`.
pub(super) fn new(
    config: &ReconstructionsConfig,
    num_fixed: usize,
    step: u64,
    training_pairs: Option<Rc<TrainingPairs>>,
) -> Box<dyn Strategy> {
    Box::new(Reconstructions {
        fixed: KeyedSamples::new(num_fixed, 0),
        random: KeyedSamples::new(config.num_random_samples, step.max(1)),
        num_seen: 0,
        training: KeyedSamples::new(config.num_train_samples, 0),
        training_pairs,
    })
}

impl Reconstructions {
    /// What the model predicts of training pairs.
    fn look_at_training(&mut self, model: &LaqModel) -> anyhow::Result<()> {
        let Some(pairs) = self.training_pairs.take() else { return Ok(()) };
        for batch in pairs.batches()? {
            let frames_BTCHW = pairs_of(batch, model)?;
            let step = eval_step(model, &frames_BTCHW);
            let observed = Observed::new(model, batch, &frames_BTCHW, &step)?;
            for index in 0..observed.num_samples() {
                self.training.offer(observed.meta(index), || shown(&observed, index))?;
            }
        }
        Ok(())
    }
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

    fn finish(mut self: Box<Self>, scene: &Scene<'_>) -> anyhow::Result<Found> {
        if !scene.has_enough(self.num_seen)? {
            return Ok(Found::default());
        }
        self.look_at_training(scene.model)?;
        let kinds = [
            (self.fixed, "Validation pairs", ""),
            (self.random, "Random validation pairs", "_random"),
            (self.training, "Training pairs", "_train"),
        ];
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
