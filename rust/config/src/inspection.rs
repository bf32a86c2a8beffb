//! Composing every file of a tree, to find mistakes before a run does.

use crate::{
    Composed, ConfigError, compose, compose_raw,
    error::Result,
    repository::{self, Repository},
    schema::Stage,
};
use std::path::Path;

/// The group whose options are whole configurations.
const EXPERIMENT: &str = "experiment";

/// The result for one file.
#[derive(Debug, Clone)]
pub struct Finding {
    /// What was composed: `experiment=laq_tiny`, or a file by its name below the root.
    pub subject: String,
    /// The mistake, if there is one.
    pub error: Option<ConfigError>,
}

/// Composes every file of the tree below `root`: each experiment from the primary file and into its typed structs, each
/// cluster with each experiment, and every other file on its own.
///
/// # Errors
/// There is no such folder. Mistakes inside the tree are findings.
pub fn inspect(root: &Path, config_name: &str) -> Result<Vec<Finding>> {
    let repository = Repository::open(root)?;
    let whole = |words: &[String]| -> Result<()> {
        let composed = compose(root, config_name, words)?;
        if is_ours(&composed) { Stage::of(&composed)?.check(&composed) } else { Ok(()) }
    };
    let mut findings = Vec::new();
    let mut add = |subject: String, result: Result<()>| findings.push(Finding { subject, error: result.err() });
    add(config_name.to_string(), compose_raw(root, config_name, &[]).map(|_| ()));
    for experiment in repository.nested_options(EXPERIMENT) {
        let choice = format!("{EXPERIMENT}={experiment}");
        add(choice.clone(), whole(std::slice::from_ref(&choice)));
        for cluster in repository.options("cluster") {
            let words = [choice.clone(), format!("cluster={cluster}")];
            add(words.join(" "), whole(&words));
        }
    }
    for group in repository.groups().into_iter().filter(|group| !repository::is_below(group, EXPERIMENT)) {
        for option in repository.options(&group) {
            let file = format!("{group}/{option}");
            add(file.clone(), compose_raw(root, &file, &[]).map(|_| ()));
        }
    }
    Ok(findings)
}

/// Whether a composition says which stage it belongs to, and so has a typed form.
pub(crate) fn is_ours(composed: &Composed) -> bool {
    composed.tree().get(crate::schema::STAGE_KEY).is_some()
}
