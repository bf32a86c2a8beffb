//! What every step has in common with the pipeline.

use hlrp_config::{Composed, Source, schema::PipelineConfig};
use std::path::Path;

/// Keys and sections whose values are the pipeline's only where it sets them; else each step has its own.
const WHERE_SET: [&str; 3] = ["cluster", "precision", "logging.level"];

/// The words that give every step what it shares with the pipeline; `passed_on` are those of [`passed_on`].
pub(super) fn words(config: &PipelineConfig, passed_on: &[String]) -> Vec<String> {
    let cluster = format!("cluster={}", config.cluster.name);
    let threads = config.num_threads.map(|threads| format!("num_threads={threads}"));
    let seed = format!("seed={}", config.seed);
    let device = format!("device={}", config.device);
    let floor = format!("logging.min_free_gb={}", config.logging.min_free_gb);
    [cluster, seed, device].into_iter().chain(threads).chain([floor]).chain(passed_on.iter().cloned()).collect()
}

/// Words that change the pipeline and its steps alike: the values of [`WHERE_SET`] that a word or an experiment sets. A pipeline that
/// continues has its former ones too; of two for the same key the new one holds.
pub(super) fn passed_on(composed: &Composed, former: Option<Vec<String>>) -> Vec<String> {
    let is_continued = former.is_some();
    let is_set = |source: &Source| match source {
        Source::Word(_) => true,
        Source::File(path) => !is_continued && is_experiment(path),
    };
    let known = WHERE_SET.into_iter().filter_map(|key| Some((key, composed.tree().get(key)?)));
    let set = known.flat_map(|(key, node)| node.values(key)).filter(|(_, node)| is_set(&node.origin.source));
    let now: Vec<String> = set.map(|(key, node)| format!("{key}={}", node.to_word())).collect();
    let is_kept = |former: &String| now.iter().all(|word| key(word) != key(former));
    former.unwrap_or_default().into_iter().filter(is_kept).chain(now.iter().cloned()).collect()
}

fn is_experiment(path: &Path) -> bool {
    path.parent().is_some_and(|folder| folder.ends_with("experiment"))
}

/// The dotted key that a word changes.
fn key(word: &str) -> &str {
    word.trim_start_matches(['+', '~']).split(['=', '@']).next().unwrap_or_default()
}
