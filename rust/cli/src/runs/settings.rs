//! Which settings tell runs apart.

use super::record::Run;
use anyhow::Result;
use hlrp_config::{Composed, Problem, ProblemKind, suggest};
use std::collections::{BTreeMap, BTreeSet};

/// Sections and keys that name or place a run and do not change what it computes.
const BOOKKEEPING: [&str; 8] = [
    "experiment",
    "logging",
    "paths",
    "cluster",
    "sweep",
    "data.cache",
    "lerobot.output_dir",
    "lerobot_eval.output_dir",
];
/// The setting in which the runs of one group differ.
pub(super) const SEED: &str = "seed";

/// Values by dotted key; a list is one value.
pub(super) type Settings = BTreeMap<String, String>;

/// The settings of a run.
///
/// # Errors
/// Its `config.yaml` is missing or damaged.
pub(super) fn of(run: &Run) -> Result<Settings> {
    Ok(leaves(&run.config()?))
}

fn leaves(composed: &Composed) -> Settings {
    composed.tree().values("").into_iter().map(|(key, node)| (key, node.summary())).collect()
}

/// Whether a key changes what a run computes.
pub(super) fn is_essential(key: &str) -> bool {
    BOOKKEEPING.iter().all(|section| key != *section && !key.starts_with(&format!("{section}.")))
}

/// The essential keys in which runs of one stage differ, sorted, the seed last.
pub(super) fn differing<'a>(runs: impl Iterator<Item = (&'a str, &'a Settings)>) -> Vec<String> {
    let mut by_stage: BTreeMap<&str, Vec<&Settings>> = BTreeMap::new();
    runs.for_each(|(stage, settings)| by_stage.entry(stage).or_default().push(settings));
    let mut found = BTreeSet::new();
    for group in by_stage.values() {
        let keys: BTreeSet<&String> = group.iter().flat_map(|settings| settings.keys()).collect();
        let differs = |key: &&String| group.iter().any(|settings| settings.get(*key) != group[0].get(*key));
        found.extend(keys.into_iter().filter(|key| is_essential(key)).filter(differs).cloned());
    }
    let has_seed = found.remove(SEED);
    found.into_iter().chain(has_seed.then(|| SEED.to_owned())).collect()
}

/// Refuses a key that no run has.
///
/// # Errors
/// [`Problem`] with the closest key.
pub(super) fn refuse_unknown(option: &str, keys: &[String], runs: &[&Settings]) -> Result<(), Problem> {
    for key in keys {
        if runs.iter().any(|settings| settings.contains_key(key)) {
            continue;
        }
        let known: BTreeSet<&str> = runs.iter().flat_map(|settings| settings.keys().map(String::as_str)).collect();
        let same_name = known.iter().find(|name| name.rsplit('.').next() == key.rsplit('.').next());
        let close = same_name.copied().or_else(|| suggest::closest(key, known.iter().copied()));
        let message = format!("{option}: no run has the key '{key}'");
        let hint =
            close.map_or_else(|| "`hlrp config show` lists the keys".into(), |key| format!("did you mean '{key}'?"));
        return Err(Problem::of(ProblemKind::UnknownKey, message).hint(hint));
    }
    Ok(())
}

/// `lr=0.0001, seed=3`: the values of these keys, each under its shortest name that is unambiguous among them.
pub(super) fn in_short(keys: &[String], settings: &Settings) -> String {
    let name = |key: &str| {
        let parts: Vec<&str> = key.split('.').collect();
        let tail = |length: usize| parts[parts.len() - length..].join(".");
        let ends = |other: &String, tail: &str| other == tail || other.ends_with(&format!(".{tail}"));
        let is_clear = |tail: &String| keys.iter().filter(|other| ends(other, tail)).count() <= 1;
        (1..=parts.len()).map(tail).find(is_clear).unwrap_or_else(|| key.to_owned())
    };
    let pair = |key: &String| format!("{}={}", name(key), settings.get(key).map_or("–", String::as_str));
    keys.iter().map(pair).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn runs_differ_in_what_they_compute_and_only_within_a_stage() {
        let one = settings(&[("model.dim", "8"), ("seed", "1"), ("logging.run_dir", "a")]);
        let two = settings(&[("model.dim", "16"), ("seed", "1"), ("logging.run_dir", "b")]);
        let other = settings(&[("policy.dim", "3"), ("seed", "2")]);
        let runs = [("laq", &one), ("laq", &two), ("vla", &other)];
        assert_eq!(differing(runs.into_iter()), ["model.dim"]);
    }

    #[test]
    fn short_names_stay_unambiguous() {
        let keys = ["training.optimizer.lr", "policy.lr", "seed"].map(str::to_owned);
        let values = settings(&[("training.optimizer.lr", "1"), ("policy.lr", "2"), ("seed", "3")]);
        assert_eq!(in_short(&keys, &values), "optimizer.lr=1, policy.lr=2, seed=3");
    }
}
