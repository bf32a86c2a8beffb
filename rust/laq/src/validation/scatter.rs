//! Actions or states in the plane of their first two dimensions, coloured by code.

use super::code_use::sequence_name;
use super::observed::Observed;
use super::samples::KeyedSamples;
use super::{Found, Scene, Strategy};
use crate::model::LaqModel;
use hlrp_schema::{ScatterColor, ScatterConfig, ScatterOf};
use hlrp_track::plot::{PointChart, PointGroup, render_points};
use hlrp_train::validation::gather_rows;
use std::collections::BTreeMap;
use tch::Tensor;

struct Scatter {
    /// x, y, then the codes.
    samples: KeyedSamples<Vec<f64>>,
    num_seen: usize,
    config: ScatterConfig,
}

/// Shows samples of all `num_processes` processes. None where the latent is continuous.
pub(super) fn new(config: &ScatterConfig, model: &LaqModel, num_processes: usize) -> Option<Box<dyn Strategy>> {
    model.quantizer.codes()?;
    let samples = KeyedSamples::new(config.num_samples.div_ceil(num_processes), 0);
    Some(Box::new(Scatter { samples, num_seen: 0, config: config.clone() }))
}

impl Strategy for Scatter {
    fn observe(&mut self, batch: &Observed<'_>, chosen: &[usize]) -> anyhow::Result<()> {
        for &index in chosen {
            let values = match self.config.of {
                ScatterOf::Action => batch.action(index)?,
                ScatterOf::State => batch.state(index)?,
            };
            let Some(values) = values.filter(|values| !values.is_empty()) else { continue };
            self.num_seen += 1;
            let place = [values[0], values.get(1).copied().unwrap_or_default()];
            let codes = batch.codes(index).iter().map(|id| *id as f64);
            self.samples.offer(batch.meta(index), || Ok(place.into_iter().chain(codes).collect()))?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>, scene: &Scene<'_>) -> anyhow::Result<Found> {
        let Self { samples, num_seen, config } = *self;
        if !scene.has_enough(num_seen)? {
            return Ok(Found::default());
        }
        let width = scene.model.dims().code_seq_len + 2;
        let rows = samples.take();
        let rows_NC = Tensor::from_slice(&rows.concat()).view([rows.len() as i64, width]);
        let rows = Vec::<f64>::try_from(gather_rows(scene.world, &rows_NC)?.reshape([-1]))?;
        let mut by_codes: BTreeMap<Vec<i64>, Vec<(f64, f64)>> = BTreeMap::new();
        for row in rows.chunks(usize::try_from(width)?) {
            let num_codes = match config.color {
                ScatterColor::FirstCode => 1,
                ScatterColor::Sequence => row.len() - 2,
            };
            let codes = row[2..2 + num_codes].iter().map(|id| *id as i64).collect();
            by_codes.entry(codes).or_default().push((row[0], row[1]));
        }
        let num_colors = by_codes.len();
        let mut groups: Vec<_> = by_codes.into_iter().collect();
        groups.sort_by_key(|(codes, points)| (std::cmp::Reverse(points.len()), codes.clone()));
        let rest = groups.split_off(config.num_top.min(groups.len()));
        let (what, axis) = match config.of {
            ScatterOf::Action => ("Actions", "sum of the actions over the pair"),
            ScatterOf::State => ("States", "state at frame t"),
        };
        let by = match config.color {
            ScatterColor::FirstCode => "first code",
            ScatterColor::Sequence => "sequence of codes",
        };
        let chart = PointChart {
            title: format!("{what} by {by} after step {}: {} of {num_colors} in color", scene.step, groups.len()),
            x_label: format!("{axis}, dimension 0"),
            y_label: format!("{axis}, dimension 1"),
            groups: groups
                .into_iter()
                .map(|(codes, points)| PointGroup {
                    name: format!("{} ({})", sequence_name(&codes), points.len()),
                    points,
                })
                .collect(),
            rest: rest.into_iter().flat_map(|(_, points)| points).collect(),
            equal_axes: true,
            from_origin: false,
        };
        Ok(Found { metrics: Vec::new(), images: vec![scene.image(render_points(&scene.name, &chart)?)] })
    }
}
