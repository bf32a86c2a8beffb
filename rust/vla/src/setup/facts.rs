//! What the datasets say of the policy's vectors: dimensions, and statistics over all sources.

use hlrp_config::Problem;
use hlrp_data::formats::FeatureStats;
use hlrp_data::{Description, SampleLayout};
use hlrp_schema::SourceConfig;
use hlrp_schema::policy::{DataFacts, FeatureFacts};
use std::collections::BTreeMap;

/// State and action of all `sources`, whose descriptions are `datasets`.
///
/// Several datasets count by their frames: the mean is that of all frames, the std goes with it, minimum and maximum are the outermost, and
/// so are the quantiles, which cannot be joined exactly.
///
/// # Errors
/// Statistics that cannot be read, or sources whose vectors differ in their dimensions.
pub(super) fn of_data(
    sources: &BTreeMap<String, SourceConfig>,
    datasets: &BTreeMap<String, Description>,
    layout: &SampleLayout,
) -> anyhow::Result<DataFacts> {
    let facts = |name: &str, vector: Option<[usize; 2]>, key: fn(&SourceConfig) -> Option<&String>| {
        vector.map(|[_, dim]| feature(name, dim, sources, datasets, key)).transpose()
    };
    Ok(DataFacts {
        state: facts("state", layout.state, |source| source.state_key.as_ref())?,
        action: facts("action", layout.action, |source| source.action_key.as_ref())?,
    })
}

/// A vector with `dim` dimensions, which `key_of` names in every source.
fn feature(
    vector: &str,
    dim: usize,
    sources: &BTreeMap<String, SourceConfig>,
    datasets: &BTreeMap<String, Description>,
    key_of: fn(&SourceConfig) -> Option<&String>,
) -> anyhow::Result<FeatureFacts> {
    let mut parts = Vec::new();
    for (name, source) in sources {
        let Some(key) = key_of(source) else { continue };
        let dataset = &datasets[name];
        let found = dataset.features.get(key).map_or(dim, |feature| feature.num_values());
        if found != dim {
            let problem = format!("`{key}` has {found} dimensions, that of another source {dim}");
            let hint = "train on sources of one robot, or leave this one out";
            return Err(Problem::new(format!("data.sources.{name}.{vector}_key"), problem, hint).into());
        }
        if let Some(stats) = dataset.statistics.get(key) {
            parts.push(stats.clone());
        }
    }
    Ok(FeatureFacts { dim, statistics: join(&parts) })
}

/// Statistics over several datasets; those that every one of them has.
fn join(parts: &[FeatureStats]) -> BTreeMap<String, Vec<f64>> {
    if let [only] = parts {
        return only.values.clone();
    }
    let all = |name: &str| -> Option<Vec<&Vec<f64>>> { parts.iter().map(|part| part.values.get(name)).collect() };
    let count = |part: &FeatureStats| part.values.get("count").and_then(|count| count.first()).copied().unwrap_or(1.0);
    let total: f64 = parts.iter().map(count).sum();
    let averages = |lists: &[Vec<f64>]| -> Vec<f64> {
        let width = lists.first().map_or(0, Vec::len);
        let at = |index: usize| lists.iter().zip(parts).map(|(list, part)| list[index] * count(part)).sum::<f64>();
        (0..width).map(|index| at(index) / total).collect()
    };
    let mut joined = BTreeMap::new();
    if let (Some(means), Some(stds)) = (all("mean"), all("std")) {
        let mean = averages(&means.iter().map(|list| (*list).clone()).collect::<Vec<_>>());
        let squares: Vec<Vec<f64>> = means
            .iter()
            .zip(&stds)
            .map(|(means, stds)| means.iter().zip(*stds).map(|(m, d)| m * m + d * d).collect())
            .collect();
        let std =
            averages(&squares).iter().zip(&mean).map(|(square, mean)| (square - mean * mean).max(0.0).sqrt()).collect();
        joined.insert("mean".to_owned(), mean);
        joined.insert("std".to_owned(), std);
    }
    type Choice = fn(f64, f64) -> f64;
    let outermost: [(&str, Choice); 4] = [("min", f64::min), ("max", f64::max), ("q01", f64::min), ("q99", f64::max)];
    for (name, choose) in outermost {
        if let Some(lists) = all(name) {
            let both = |a: Vec<f64>, b: &Vec<f64>| a.iter().zip(b).map(|(a, b)| choose(*a, *b)).collect();
            let rest = lists.iter().skip(1);
            joined.insert(
                name.to_owned(),
                rest.fold(lists.first().map_or(Vec::new(), |l| (*l).clone()), |a, b| both(a, b)),
            );
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::join;
    use hlrp_data::formats::FeatureStats;

    #[test]
    fn two_datasets_join_as_their_frames_would() {
        let part = |values: &[(&str, f64)]| FeatureStats {
            values: values.iter().map(|(name, value)| ((*name).to_owned(), vec![*value])).collect(),
        };
        // 1, 1, 1 and 3.
        let joined = join(&[
            part(&[("mean", 1.0), ("std", 0.0), ("min", 1.0), ("max", 1.0), ("count", 3.0)]),
            part(&[("mean", 3.0), ("std", 0.0), ("min", 3.0), ("max", 3.0), ("count", 1.0)]),
        ]);
        assert_eq!(joined["mean"], [1.5]);
        assert!((joined["std"][0] - 0.75_f64.sqrt()).abs() < 1e-12);
        assert_eq!((joined["min"][0], joined["max"][0]), (1.0, 3.0));
        assert!(!joined.contains_key("q01"), "no statistic is made up");
    }
}
