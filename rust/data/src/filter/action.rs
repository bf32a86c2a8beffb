//! The action score of an anchor: how much the robot does in the steps from it on.

use super::{Filter, num_anchors, scores};
use crate::error::DataError;
use crate::formats::FeatureKind;
use crate::parallel::in_parallel;
use crate::request::EpisodeSpan;
use hlrp_schema::{ActionFilterConfig, OverSteps};
use hlrp_track::fs::DiskRules;
use std::path::Path;

/// Norm of an action from which on the robot does anything.
const NONZERO: f64 = 1e-8;

/// Score and fraction of steps with an action, for each anchor of each episode.
pub(super) fn scores(
    filter: &Filter<'_>,
    key: &str,
    gap: u64,
    folder: &Path,
    disk: &DiskRules,
) -> Result<Vec<f32>, DataError> {
    let ActionFilterConfig { num_steps, delta_dims, exclude_dims, over_steps, .. } = &filter.config.action;
    let settings = serde_json::json!([key, gap, num_steps, delta_dims, exclude_dims, over_steps]);
    let fingerprint = filter.dataset.describe().fingerprint.clone();
    let width = filter.dataset.describe().feature(key, FeatureKind::Vector).map_or(0, |feature| feature.num_values());
    let file = scores::ScoreFile::new(filter, folder, "action", &settings, &[fingerprint]);
    file.read_or(disk, || {
        let of_episode = |span: &EpisodeSpan| {
            let rows: Vec<u64> = (span.from_row..span.to_row).collect();
            let mut values_TN = vec![0.0; rows.len() * width];
            filter.dataset.read_vectors(key, &rows, &mut values_TN)?;
            let norms = norms(&values_TN, width, &filter.config.action);
            let num_steps = usize::try_from(*num_steps).unwrap_or(usize::MAX);
            Ok(of_norms(&norms, num_anchors(span, gap) as usize, num_steps, *over_steps))
        };
        let scores = in_parallel(filter.spans, of_episode).into_iter().collect::<Result<Vec<_>, DataError>>()?;
        Ok((scores.concat(), true))
    })
}

/// The norm of each step's action.
fn norms(values_TN: &[f32], width: usize, config: &ActionFilterConfig) -> Vec<f64> {
    let rows: Vec<&[f32]> = values_TN.chunks_exact(width.max(1)).collect();
    let is_in = |dims: &[u64], dim: usize| dims.contains(&(dim as u64));
    let norm = |step: usize| {
        let dims = (0..width).filter(|dim| !is_in(&config.exclude_dims, *dim));
        let values = dims.map(|dim| match step.checked_sub(1) {
            _ if !is_in(&config.delta_dims, dim) => f64::from(rows[step][dim]),
            Some(before) => f64::from(rows[step][dim]) - f64::from(rows[before][dim]),
            None => 0.0,
        });
        values.map(|value| value * value).sum::<f64>().sqrt()
    };
    (0..rows.len()).map(norm).collect()
}

/// Scores of the first `num_anchors` steps, over the steps that the episode has.
fn of_norms(norms: &[f64], num_anchors: usize, num_steps: usize, over_steps: OverSteps) -> Vec<f32> {
    let score = |anchor: usize| {
        let chunk = &norms[anchor..norms.len().min(anchor.saturating_add(num_steps))];
        let count = chunk.len().max(1) as f64;
        let score = match over_steps {
            OverSteps::Max => chunk.iter().copied().fold(0.0, f64::max),
            OverSteps::Mean => chunk.iter().sum::<f64>() / count,
        };
        let ratio = chunk.iter().filter(|norm| **norm > NONZERO).count() as f64 / count;
        [score as f32, ratio as f32]
    };
    (0..num_anchors).flat_map(score).collect()
}

#[cfg(test)]
mod tests {
    use super::{norms, of_norms};
    use hlrp_schema::{ActionFilterConfig, OverSteps};

    #[test]
    fn absolute_dimensions_count_by_their_change_and_excluded_ones_not() {
        let config = ActionFilterConfig {
            num_steps: 2,
            delta_dims: vec![1],
            exclude_dims: vec![2],
            over_steps: OverSteps::Max,
            threshold: 0.0,
            min_nonzero_ratio: 0.0,
        };
        let actions = [3.0, 5.0, 9.0, 0.0, 5.0, 9.0, 0.0, 9.0, 7.0];
        let norms = norms(&actions, 3, &config);
        assert_eq!(norms, [3.0, 0.0, 4.0]);
        assert_eq!(of_norms(&norms, 3, 2, OverSteps::Max), [3.0, 0.5, 4.0, 0.5, 4.0, 1.0]);
        assert_eq!(of_norms(&norms, 2, 2, OverSteps::Mean), [1.5, 0.5, 2.0, 0.5]);
    }
}
