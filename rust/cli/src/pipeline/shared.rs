//! What every step has in common with the pipeline.

use hlrp_config::{Composed, Source, override_key, write_value};
use hlrp_schema::CommonConfig;

/// Keys and sections whose values are the pipeline's only where it sets them; else each step has its own.
const WHERE_SET: [&str; 5] = ["cluster", "precision", "logging.level", "logging.use_wandb", "logging.wandb"];

/// Group whose option says where a run computes; every step has that of the pipeline.
const CLUSTER: &str = "cluster";

/// The overrides that give every step what it shares with the pipeline, besides the seed; `passed_on` are those of [`passed_on`].
pub(super) fn overrides(config: &CommonConfig<'_>, passed_on: &[String]) -> Vec<String> {
    let threads = config.num_threads.map(|threads| format!("num_threads={threads}"));
    let processes = (!config.num_processes.is_one()).then(|| format!("num_processes={}", config.num_processes));
    let device = format!("device={}", config.device);
    let floors = [
        format!("logging.min_free_gb={}", config.logging.min_free_gb),
        format!("logging.min_free_files={}", config.logging.min_free_files),
    ];
    [device].into_iter().chain(threads).chain(processes).chain(floors).chain(passed_on.iter().cloned()).collect()
}

/// Overrides that change the pipeline and its steps alike: the choice of the cluster, and the values of [`WHERE_SET`] that an override
/// or an experiment sets. A pipeline that continues, whose configuration knows neither choices nor experiments, has its `former` ones too; of
/// two for the same key the new one wins.
pub(super) fn passed_on(composed: &Composed, former: Option<&[String]>) -> Vec<String> {
    let choice = composed.raw().choices().get(CLUSTER).cloned().flatten();
    let is_set = |source: &Source| match source {
        Source::Override(_) => true,
        Source::File(path) => composed.raw().is_option_of(path, "experiment"),
    };
    let known = WHERE_SET.into_iter().filter_map(|key| Some((key, composed.tree().get(key)?)));
    let set = known.flat_map(|(key, node)| node.values(key)).filter(|(_, node)| is_set(&node.origin.source));
    let set = set.map(|(key, node)| format!("{key}={}", write_value(node)));
    let now: Vec<String> = choice.map(|option| format!("{CLUSTER}={option}")).into_iter().chain(set).collect();
    let is_kept = |former: &&String| now.iter().all(|change| override_key(change) != override_key(former));
    former.unwrap_or_default().iter().filter(is_kept).chain(&now).cloned().collect()
}
