//! Whether the datasets that the configuration names are there and have what it names.

use hlrp_config::Problem;
use hlrp_data::DataError;
use hlrp_data::lerobot::{Feature, Info};
use hlrp_schema::SourceConfig;
use std::collections::BTreeMap;

/// Looks at every source.
///
/// # Errors
/// [`Problem`] with the key of a folder that holds no dataset, of a feature that the dataset lacks, or of the episodes to hold out when
/// no source holds out any; otherwise a dataset that cannot be read.
pub(super) fn check(sources: &BTreeMap<String, SourceConfig>) -> anyhow::Result<()> {
    for (name, source) in sources {
        check_source(&format!("data.sources.{name}"), source)?;
    }
    match sources.keys().next() {
        Some(name) if sources.values().all(|source| source.num_val_episodes == 0) => {
            let key = format!("data.sources.{name}.num_val_episodes");
            Err(mistake(key, "no episode is held out for validation".to_owned(), "hold out at least one"))
        }
        _ => Ok(()),
    }
}

/// Looks at the source with the key `place`.
fn check_source(place: &str, source: &SourceConfig) -> anyhow::Result<()> {
    let info = match Info::read(&source.root) {
        Ok(info) => info,
        Err(DataError::Dataset { root, what, hint }) if !root.join("meta/info.json").exists() => {
            return Err(mistake(format!("{place}.root"), format!("{}: {what}", root.display()), &hint));
        }
        Err(error) => return Err(error.into()),
    };
    let cameras = source.cameras.iter().map(|(role, feature)| (format!("{place}.cameras.{role}"), feature));
    let vectors = [("state_key", &source.state_key), ("action_key", &source.action_key)];
    let vectors = vectors.into_iter().filter_map(|(key, name)| Some((format!("{place}.{key}"), name.as_ref()?)));
    let of_kind = |kind, is_kind: fn(&Feature) -> bool| {
        let existing = info.features.iter().filter(move |(_, feature)| is_kind(feature));
        (kind, existing.map(|(name, _)| name.as_str()).collect::<Vec<_>>())
    };
    let (camera, vector) = (of_kind("camera", Feature::is_camera), of_kind("vector", Feature::is_vector));
    let wanted = cameras.map(|wanted| (wanted, &camera)).chain(vectors.map(|wanted| (wanted, &vector)));
    for ((key, feature), (kind, existing)) in wanted {
        if !existing.contains(&feature.as_str()) {
            let problem = format!("{} has no {kind} `{feature}`", source.root.display());
            let hint = if existing.is_empty() {
                "there is none".to_owned()
            } else {
                format!("there are {}", existing.join(", "))
            };
            return Err(mistake(key, problem, &hint));
        }
    }
    Ok(())
}

fn mistake(key: String, problem: String, hint: &str) -> anyhow::Error {
    Problem::new(key, problem, hint).into()
}
