//! How often each code is used.

use super::code_use::CodeUse;
use super::observed::Observed;
use super::{Found, Scene, Strategy};
use crate::model::LaqModel;
use hlrp_track::plot::{BarChart, render_bars};

struct CodeHistogram(CodeUse);

/// None where the latent is continuous.
pub(super) fn new(model: &LaqModel) -> Option<Box<dyn Strategy>> {
    CodeUse::of(model).map(|codes| Box::new(CodeHistogram(codes)) as Box<dyn Strategy>)
}

impl Strategy for CodeHistogram {
    fn observe(&mut self, batch: &Observed<'_>, chosen: &[usize]) -> anyhow::Result<()> {
        chosen.iter().for_each(|&index| self.0.add(batch.codes(index)));
        Ok(())
    }

    fn finish(self: Box<Self>, scene: &Scene<'_>) -> anyhow::Result<Found> {
        if !scene.has_enough(usize::try_from(self.0.num_samples())?)? {
            return Ok(Found::default());
        }
        let codes = self.0.of_all(scene.world)?;
        let counts = codes.counts();
        let total: u64 = counts.iter().sum();
        let chart = BarChart {
            title: format!("Codes in use after step {}: {} of {}", scene.step, codes.num_used(), counts.len()),
            x_label: "code".into(),
            y_label: "fraction of assignments".into(),
            values: counts.iter().map(|count| *count as f64 / total as f64).collect(),
            names: Vec::new(),
            reference: Some(("uniform".into(), 1.0 / counts.len() as f64)),
        };
        let images = vec![scene.image(render_bars(&scene.name, &chart)?)];
        // Those of the whole validation set are measured at every validation.
        let metrics = if scene.suffix.is_empty() { Vec::new() } else { codes.metrics() };
        let metrics = metrics.into_iter().map(|(name, value)| (format!("{name}{}", scene.suffix), value)).collect();
        Ok(Found { metrics, images })
    }
}
