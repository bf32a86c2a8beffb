//! The codes' vectors in the plane of their two main components, coloured by use.
//!
//! Shape suffixes: K codes, Q width of a code vector.

use super::code_use::CodeUse;
use super::observed::Observed;
use super::{Found, Scene, Strategy};
use crate::model::LaqModel;
use hlrp_track::plot::{PointChart, PointGroup, render_points};
use tch::{Device, Kind, Tensor};

/// Use of a code against the mean use below and above which it counts as rare and frequent.
const USE_LIMITS: [f64; 2] = [0.5, 2.0];

struct CodebookEmbedding(CodeUse);

/// None where the latent is continuous.
pub(super) fn new(model: &LaqModel) -> Option<Box<dyn Strategy>> {
    CodeUse::of(model).map(|codes| Box::new(CodebookEmbedding(codes)) as Box<dyn Strategy>)
}

impl Strategy for CodebookEmbedding {
    fn observe(&mut self, batch: &Observed<'_>, chosen: &[usize]) -> anyhow::Result<()> {
        chosen.iter().for_each(|&index| self.0.add(batch.codes(index)));
        Ok(())
    }

    fn finish(self: Box<Self>, scene: &Scene<'_>) -> anyhow::Result<Found> {
        let (true, Some(codes)) =
            (scene.has_enough(usize::try_from(self.0.num_samples())?)?, scene.model.quantizer.codes())
        else {
            return Ok(Found::default());
        };
        let used = self.0.of_all(scene.world)?;
        let ids_1K = Tensor::arange(codes.num_codes(), (Kind::Int64, scene.model.store().device())).unsqueeze(0);
        let rows_KQ = codes.vectors(&ids_1K).squeeze_dim(0).to_device(Device::Cpu).to_kind(Kind::Double);
        let (points, explained) = main_plane(&rows_KQ)?;
        let mean = used.counts().iter().sum::<u64>() as f64 / points.len() as f64;
        let in_range = |low: f64, high: f64| {
            let uses = used.counts().iter().map(|count| *count as f64 / mean);
            points.iter().zip(uses).filter(|(_, used)| (low..high).contains(used)).map(|(point, _)| *point).collect()
        };
        let [low, high] = USE_LIMITS;
        let group =
            |name: String, points: Vec<(f64, f64)>| PointGroup { name: format!("{name}: {}", points.len()), points };
        let chart = PointChart {
            title: format!("Code vectors after step {} ({} unused, grey)", scene.step, points.len() - used.num_used()),
            x_label: format!("first component ({:.0} % of the variance)", 100.0 * explained[0]),
            y_label: format!("second component ({:.0} %)", 100.0 * explained[1]),
            groups: vec![
                group(format!("used less than {low} of the mean"), in_range(f64::MIN_POSITIVE, low)),
                group("about the mean".into(), in_range(low, high)),
                group(format!("more than {high} of it"), in_range(high, f64::INFINITY)),
            ],
            rest: in_range(0.0, f64::MIN_POSITIVE),
            ..PointChart::default()
        };
        Ok(Found { metrics: Vec::new(), images: vec![scene.image(render_points(&scene.name, &chart)?)] })
    }
}

/// Places of rows, and the fraction of the variance that each axis explains.
type Plane = (Vec<(f64, f64)>, [f64; 2]);

/// Rows `float64 [K,Q]` in the plane of their two main components, and what fraction of their variance each explains. A component's
/// sign is that of its largest entry in absolute value.
fn main_plane(rows_KQ: &Tensor) -> anyhow::Result<Plane> {
    let centred_KQ = rows_KQ - rows_KQ.mean_dim([0].as_slice(), true, Kind::Double);
    let (_, values, directions_QN) = centred_KQ.svd(true, true);
    let total = values.square().sum(Kind::Double).double_value(&[]).max(f64::MIN_POSITIVE);
    let mut components = Vec::new();
    for component in 0..2_i64 {
        if component >= directions_QN.size()[1] {
            components.push((vec![0.0; usize::try_from(rows_KQ.size()[0])?], 0.0));
            continue;
        }
        let direction_Q = directions_QN.select(1, component);
        let largest = direction_Q.abs().argmax(0, false).int64_value(&[]);
        let sign = direction_Q.double_value(&[largest]).signum();
        let places = Vec::<f64>::try_from(centred_KQ.matmul(&(direction_Q * sign)))?;
        components.push((places, values.double_value(&[component]).powi(2) / total));
    }
    let [(x, first), (y, second)] = [components[0].clone(), components[1].clone()];
    Ok((x.into_iter().zip(y).collect(), [first, second]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;

    #[test]
    fn rows_on_a_line_have_one_component() {
        let rows = Tensor::from_slice(&[1.0, 2.0, 2.0, 4.0, 4.0, 8.0]).view([3, 2]);
        let (points, explained) = main_plane(&rows).unwrap();
        assert!((explained[0] - 1.0).abs() < 1e-12 && explained[1] < 1e-12);
        let length = 5_f64.sqrt();
        for ((x, y), along) in points.iter().zip([-4.0 / 3.0, -1.0 / 3.0, 5.0 / 3.0]) {
            assert!((x - along * length).abs() < 1e-9 && y.abs() < 1e-9, "{points:?}");
        }
    }

    #[test]
    fn codes_of_one_dimension_are_on_the_horizontal_axis() {
        let (points, explained) = main_plane(&Tensor::from_slice(&[0.0, 3.0]).view([2, 1])).unwrap();
        assert_eq!(points, [(-1.5, 0.0), (1.5, 0.0)]);
        assert_eq!(explained, [1.0, 0.0]);
    }
}
