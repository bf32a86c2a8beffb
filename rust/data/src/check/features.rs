//! Every vector of a dataset of any format: finite values, and statistics that are those of the data.

use super::Findings;
use super::statistics::{Statistics, compare};
use crate::error::DataError;
use crate::formats::{Dataset, FeatureKind};
use crate::request::EpisodeSpan;
use std::collections::BTreeMap;

/// Reads every vector of every episode.
pub(crate) fn check_features<D: Dataset + ?Sized>(dataset: &D, findings: &mut Findings) {
    let description = dataset.describe();
    let episodes = dataset.episodes();
    let num_frames: u64 = episodes.iter().map(EpisodeSpan::num_frames).sum();
    for (what, said, found) in
        [("episodes", description.num_episodes, episodes.len() as u64), ("frames", description.num_frames, num_frames)]
    {
        if said != found {
            findings.line(format!("the dataset says that it has {said} {what}, but there are {found}"));
        }
    }
    let mut statistics = BTreeMap::new();
    for key in description.keys(FeatureKind::Vector) {
        match sum_up(dataset, key, &episodes, findings) {
            Ok(summed) => drop(statistics.insert(key, summed)),
            Err(error) => findings.error(&error),
        }
    }
    for finding in compare(&description.statistics, &statistics) {
        findings.line(finding);
    }
}

/// Statistics of one vector over all episodes.
fn sum_up<D: Dataset + ?Sized>(
    dataset: &D,
    key: &str,
    episodes: &[EpisodeSpan],
    findings: &mut Findings,
) -> Result<Statistics, DataError> {
    let width = dataset.describe().features[key].num_values();
    let mut statistics = Statistics::new(width);
    for span in episodes {
        let rows: Vec<u64> = (span.from_row..span.to_row).collect();
        let mut values = vec![0.0_f32; rows.len() * width];
        dataset.read_vectors(key, &rows, &mut values)?;
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            findings.line(format!("`{key}` is {} at row {} (episode {})", values[at], rows[at / width], span.episode));
        }
        statistics.add(&values.into_iter().map(f64::from).collect::<Vec<_>>());
    }
    Ok(statistics)
}
