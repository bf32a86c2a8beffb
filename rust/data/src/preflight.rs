//! Whether the sources of a run can be used, before anything is built.

use crate::error::DataError;
use crate::formats::{self, Description, OpenOptions};
use crate::hub::{locate, require_files};
use crate::parallel::in_parallel;
use crate::source::{check_features, check_section};
use hlrp_config::{Hint, Problem};
use hlrp_schema::SourceConfig;
use std::{collections::BTreeMap, path::Path};

/// What the datasets say about themselves, by the names of their sources. Folders of scenes are indexed below `cache`.
///
/// # Errors
/// [`Problem`] with the key of a folder that has no dataset, or of a feature that the dataset does not have; otherwise a dataset
/// that cannot be read.
pub fn describe_sources(
    sources: &BTreeMap<String, SourceConfig>,
    cache: &Path,
) -> Result<BTreeMap<String, Description>, DataError> {
    let sources: Vec<_> = sources.iter().collect();
    let describe = |&(name, source): &(&String, &SourceConfig)| {
        let described = describe_source(name, source, cache).map_err(|error| error.of_source(name))?;
        Ok((name.clone(), described))
    };
    in_parallel(&sources, describe).into_iter().collect()
}

/// Looks at every source before a run: its folder, its features, and whether any source holds out episodes.
///
/// # Errors
/// As [`describe_sources`]; [`Problem`] when no source holds out any episode.
pub fn preflight(sources: &BTreeMap<String, SourceConfig>, cache: &Path) -> Result<(), DataError> {
    describe_sources(sources, cache)?;
    match sources.keys().next() {
        Some(name) if sources.values().all(|source| !source.holds_out()) => {
            let key = format!("data.sources.{name}.num_val_episodes");
            Err(Problem::new(key, "no episode is held out for validation", "hold out at least one").into())
        }
        _ => Ok(()),
    }
}

fn describe_source(name: &str, source: &SourceConfig, cache: &Path) -> Result<Description, DataError> {
    let location = locate(name, source)?;
    let root = &location.root;
    formats::check_format(root).map_err(|error| {
        let key = format!("data.sources.{name}.{}", source.place_key());
        Problem::new(key, error.to_string(), error.hint().unwrap_or_default())
    })?;
    check_section(name, source, root)?;
    let index_dir = formats::is_scenes(root).then(|| cache.to_owned());
    let SourceConfig { rlds, scenes, .. } = source.clone();
    let options = OpenOptions { rlds, scenes, index_dir, ..OpenOptions::new(0) };
    let dataset = formats::open(root, &options)?;
    check_features(name, source, dataset.describe())?;
    require_files(name, source, &location)?;
    Ok(dataset.describe().clone())
}
