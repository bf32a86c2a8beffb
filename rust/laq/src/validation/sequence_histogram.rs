//! How often each sequence of codes is used.

use super::code_use::{CodeUse, sequence_name};
use super::observed::Observed;
use super::{Found, Scene, Strategy};
use crate::model::LaqModel;
use hlrp_schema::SequenceHistogramConfig;
use hlrp_track::plot::{BarChart, PointChart, PointGroup, RgbImage, render_bars, render_points};

struct SequenceHistogram {
    codes: CodeUse,
    num_top: Option<usize>,
}

/// None where the latent is continuous.
pub(super) fn new(config: &SequenceHistogramConfig, model: &LaqModel) -> Option<Box<dyn Strategy>> {
    let num_top = config.num_top;
    CodeUse::of(model).map(|codes| Box::new(SequenceHistogram { codes, num_top }) as Box<dyn Strategy>)
}

impl Strategy for SequenceHistogram {
    fn observe(&mut self, batch: &Observed<'_>, chosen: &[usize]) -> anyhow::Result<()> {
        chosen.iter().for_each(|&index| self.codes.add(batch.codes(index)));
        Ok(())
    }

    fn finish(self: Box<Self>, scene: &Scene<'_>) -> anyhow::Result<Found> {
        if !scene.has_enough(usize::try_from(self.codes.num_samples())?)? {
            return Ok(Found::default());
        }
        let codes = self.codes.of_all(scene.world)?;
        let sequences = codes.sequences();
        let num_samples = codes.num_samples();
        let image = match self.num_top {
            Some(num_top) => top(scene, &sequences, num_samples, num_top)?,
            None => all(scene, &sequences, num_samples)?,
        };
        Ok(Found { metrics: Vec::new(), images: vec![scene.image(image)] })
    }
}

/// A bar for each of the most frequent sequences.
fn top(scene: &Scene<'_>, sequences: &[(Vec<i64>, u64)], num_samples: u64, num_top: usize) -> anyhow::Result<RgbImage> {
    let shown = &sequences[..num_top.min(sequences.len())];
    let covered: u64 = shown.iter().map(|(_, count)| count).sum();
    let chart = BarChart {
        title: format!(
            "Sequences of codes after step {}: {} of {}, {:.0} % of the samples",
            scene.step,
            shown.len(),
            sequences.len(),
            100.0 * covered as f64 / num_samples as f64
        ),
        x_label: "sequence".into(),
        y_label: "samples".into(),
        values: shown.iter().map(|(_, count)| *count as f64).collect(),
        names: shown.iter().map(|(ids, _)| sequence_name(ids)).collect(),
        reference: None,
    };
    Ok(render_bars(&scene.name, &chart)?)
}

/// A point for each sequence, by its rank.
fn all(scene: &Scene<'_>, sequences: &[(Vec<i64>, u64)], num_samples: u64) -> anyhow::Result<RgbImage> {
    let points = sequences.iter().enumerate().map(|(rank, (_, count))| (rank as f64, (*count as f64).log10()));
    let chart = PointChart {
        title: format!("All {} sequences of codes after step {}", sequences.len(), scene.step),
        x_label: "rank of the sequence".into(),
        y_label: "log10 of its samples".into(),
        groups: vec![PointGroup { name: format!("{num_samples} samples"), points: points.collect() }],
        ..PointChart::default()
    };
    Ok(render_points(&scene.name, &chart)?)
}
