//! The flow decoder's prediction beside the flow of its teacher.

use super::observed::Observed;
use super::pictures::{Row, both_frames, frame_image, label, render_rows};
use super::samples::KeyedSamples;
use super::{Found, Scene, Strategy};
use crate::decoders::flow_colors;
use crate::model::LaqModel;
use hlrp_schema::FlowStrategyConfig;

const DECODER: &str = "flow";
const COLUMNS: [&str; 4] = ["frame t", "frame t+k", "teacher", "predicted"];

struct Flow {
    samples: KeyedSamples<Row>,
    num_seen: usize,
}

/// None where the model has no flow decoder.
pub(super) fn new(config: &FlowStrategyConfig, model: &LaqModel) -> Option<Box<dyn Strategy>> {
    model.decoders.get(DECODER)?;
    Some(Box::new(Flow { samples: KeyedSamples::new(config.num_samples, 0), num_seen: 0 }))
}

impl Strategy for Flow {
    fn observe(&mut self, batch: &Observed<'_>, chosen: &[usize]) -> anyhow::Result<()> {
        let (decoder, prediction) = (batch.model.decoders.get(DECODER), batch.step.predictions.get(DECODER));
        let earlier_BCHW = batch.frames_BTCHW.select(1, 0);
        let predicted = decoder.zip(prediction).and_then(|(decoder, flow)| decoder.image(flow, &earlier_BCHW));
        let (Some((_, predicted_BCHW)), Some(truth_B2HW)) = (predicted, batch.step.target.flow_B2HW.get()) else {
            anyhow::bail!("the flow decoder has no teacher");
        };
        let teacher_BCHW = flow_colors(truth_B2HW);
        self.num_seen += chosen.len();
        for &index in chosen {
            self.samples.offer(batch.meta(index), || {
                let mut images = both_frames(batch, index)?;
                for flow_BCHW in [&teacher_BCHW, &predicted_BCHW] {
                    images.push(frame_image(&flow_BCHW.select(0, index as i64))?);
                }
                Ok(Row { label: label(batch.meta(index), batch.codes(index)), images })
            })?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>, scene: &Scene<'_>) -> anyhow::Result<Found> {
        if !scene.has_enough(self.num_seen)? {
            return Ok(Found::default());
        }
        let rows = self.samples.take();
        if rows.is_empty() {
            return Ok(Found::default());
        }
        let title = format!("Optical flow after step {} (hues are directions)", scene.step);
        Ok(Found { metrics: Vec::new(), images: vec![scene.image(render_rows(&scene.name, title, &COLUMNS, &rows)?)] })
    }
}
