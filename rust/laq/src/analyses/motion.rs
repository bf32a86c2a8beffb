//! The motion of a pair as two numbers, and of several pairs as one.
//!
//! Shape suffixes: B samples, H×W pixels.

use super::collect::Record;
use crate::decoders::mean_flow;
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

/// Mean flow of each sample by its lengths, pixels `(dx, dy)`, and whether nothing moves: the lengths sum up to at most `static_eps`,
/// and the mean is then a plain one.
pub(super) fn summaries(flow_B2HW: &Tensor, static_eps: f64) -> anyhow::Result<Vec<((f64, f64), bool)>> {
    let flow_B2HW = flow_B2HW.to_device(Device::Cpu).to_kind(Kind::Double);
    let length_BHW = flow_B2HW.square().sum_dim_intlist([1].as_slice(), false, Kind::Double).sqrt();
    let total_B = length_BHW.sum_dim_intlist([1, 2].as_slice(), false, Kind::Double);
    let is_static_B = total_B.le(static_eps);
    let plain_B2 = flow_B2HW.mean_dim([2, 3].as_slice(), false, Kind::Double);
    let mean_B2 = plain_B2.where_self(&is_static_B.unsqueeze(1), &mean_flow(&flow_B2HW));
    let mean = Vec::<f64>::try_from(mean_B2.reshape([-1]))?;
    let is_static = Vec::<bool>::try_from(is_static_B)?;
    Ok(mean.chunks(2).map(|pair| (pair[0], pair[1])).zip(is_static).collect())
}

/// A vector of the plane, its length and its direction in radians (x to the right, y downwards, as images have it).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Motion {
    pub(super) dx: f64,
    pub(super) dy: f64,
}

impl Motion {
    /// Mean of several; none of none.
    pub(super) fn mean(motions: impl Iterator<Item = (f64, f64)>) -> Option<Self> {
        let (sum, count) =
            motions.fold(((0.0, 0.0), 0_u32), |(sum, count), motion| ((sum.0 + motion.0, sum.1 + motion.1), count + 1));
        let count = f64::from(count);
        (count > 0.0).then(|| Self { dx: sum.0 / count, dy: sum.1 / count })
    }

    pub(super) fn length(self) -> f64 {
        self.dx.hypot(self.dy)
    }

    pub(super) fn angle(self) -> f64 {
        self.dy.atan2(self.dx)
    }
}

/// Mean motion of each dataset: what its camera and robot do on average.
pub(super) fn baselines(records: &[Record]) -> BTreeMap<String, Motion> {
    let mut by_source: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for record in records {
        by_source.entry(&record.source).or_default().push(record.motion);
    }
    let mean =
        |(source, motions): (&str, Vec<(f64, f64)>)| Some((source.to_owned(), Motion::mean(motions.into_iter())?));
    by_source.into_iter().filter_map(mean).collect()
}

/// Mean motion of records, as it is and with the mean of each record's dataset removed.
pub(super) fn raw_and_centred<'a>(
    records: impl Iterator<Item = &'a Record> + Clone,
    baselines: &BTreeMap<String, Motion>,
) -> Option<(Motion, Motion)> {
    let centred = records.clone().filter_map(|record| {
        let baseline = baselines.get(&record.source)?;
        Some((record.motion.0 - baseline.dx, record.motion.1 - baseline.dy))
    });
    Some((Motion::mean(records.map(|record| record.motion))?, Motion::mean(centred)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;

    #[test]
    fn fast_pixels_count_more_and_still_samples_are_static() {
        // Sample 0: (3, 0) and (0, 1); sample 1: nothing moves.
        let flow = Tensor::from_slice(&[3.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]).view([2, 2, 1, 2]);
        let found = summaries(&flow, 1e-6).unwrap();
        let ((dx, dy), is_static) = found[0];
        assert!((dx - 9.0 / 4.0).abs() < 1e-9 && (dy - 1.0 / 4.0).abs() < 1e-9 && !is_static);
        assert_eq!(found[1], ((0.0, 0.0), true));
    }
}
