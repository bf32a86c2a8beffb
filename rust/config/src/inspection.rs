//! Composing every file of a tree, to find errors before a run does.

use crate::compose::{compose, compose_raw};
use crate::node::{Node, Value};
use crate::problem::{Problem, ProblemKind, Result};
use crate::project::Project;
use crate::repository::{Repository, is_below};
use crate::sweep::{CheckRun, num_runs, sweep};
use std::path::Path;

/// The result for one file.
#[derive(Debug, Clone)]
pub struct Finding {
    /// What was composed: `experiment=laq_tiny`, or a file by its name below the root.
    pub subject: String,
    /// Whether it composes.
    pub outcome: Outcome,
}

/// The result of composing a file.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It composes and, where it is a whole configuration, types; the keys are those that only the user can provide.
    Good {
        /// Dotted paths.
        needs: Vec<String>,
    },
    /// An experiment and a cluster that do not fit.
    Misfit(Problem),
    /// An error.
    Wrong(Problem),
}

/// Composes every file of the tree below `root`: each experiment from the primary file and into its typed structs, each
/// cluster with each experiment, and every other file on its own.
///
/// # Errors
/// There is no such folder. Errors inside the tree are findings.
pub fn inspect(project: &Project, check: CheckRun, root: &Path, config_name: &str) -> Result<Vec<Finding>> {
    let repository = Repository::open(root)?;
    let config_name = config_name.strip_suffix(".yaml").unwrap_or(config_name);
    let whole = |overrides: &[String]| check_given(project, check, root, config_name, overrides);
    let mut findings = Vec::new();
    let mut add = |subject: String, result: Result<Vec<String>>| {
        let outcome = match result {
            Ok(needs) => Outcome::Good { needs },
            Err(error) if error.kind() == ProblemKind::Misfit => Outcome::Misfit(error),
            Err(error) => Outcome::Wrong(error),
        };
        findings.push(Finding { subject, outcome });
    };
    let primary = compose_raw(project, root, config_name, &[]);
    let chosen: Vec<String> = primary.iter().flat_map(|primary| primary.choices().keys().cloned()).collect();
    // A group that the primary file does not name is added to its list.
    let choice = |group: &str, option: &str| {
        let plus = if chosen.iter().any(|key| key == group) || primary.is_err() { "" } else { "+" };
        format!("{plus}{group}={option}")
    };
    add(config_name.to_string(), primary.as_ref().map(|_| Vec::new()).map_err(Clone::clone));
    for other in repository.options("").into_iter().filter(|name| name != config_name) {
        add(other.clone(), compose_raw(project, root, &other, &[]).map(|_| Vec::new()));
    }
    let experiments: Vec<String> = repository
        .nested_options(project.experiments)
        .iter()
        .map(|option| choice(project.experiments, option))
        .collect();
    for choice in &experiments {
        add(choice.clone(), whole(std::slice::from_ref(choice)));
    }
    for group in repository.groups().into_iter().filter(|group| !is_below(group, project.experiments)) {
        for option in repository.files(&group) {
            let file = format!("{group}/{option}");
            if changes_choices(&repository, &file) {
                let choice = choice(&group, &option);
                add(choice.clone(), whole(std::slice::from_ref(&choice)));
                continue;
            }
            add(file.clone(), compose_raw(project, root, &file, &[]).map(|_| Vec::new()));
        }
    }
    for cluster in repository.options(project.crossed_with) {
        for choice in &experiments {
            let overrides = [choice.clone(), format!("{}={cluster}", project.crossed_with)];
            add(overrides.join(" "), whole(&overrides));
        }
    }
    Ok(findings)
}

/// Whether a file sets keys of the whole tree and overrides choices that the primary file makes: it means something
/// only together with that file.
fn changes_choices(repository: &Repository, file: &str) -> bool {
    let Ok(Some(document)) = repository.load(file) else { return false };
    let is_override = |entry: &Node| {
        let map = entry.as_map();
        map.is_some_and(|map| map.keys().any(|key| key.split_whitespace().any(|part| part == "override")))
    };
    let Some(Value::List(entries)) = document.root.child("defaults").map(|list| &list.value) else { return false };
    document.package.as_deref() == Some("_global_") && entries.iter().any(is_override)
}

/// Placeholder for a value that only the user can provide, such as the path of a checkpoint.
const GIVEN: &str = "/given/on/the/command/line";

/// Composes and checks a whole configuration, and all runs of a sweep. Returns the keys that it needs from the user.
fn check_given(
    project: &Project,
    check: CheckRun,
    root: &Path,
    config_name: &str,
    overrides: &[String],
) -> Result<Vec<String>> {
    let mut overrides = overrides.to_vec();
    let mut needs = Vec::new();
    loop {
        let checked =
            compose(project, root, config_name, &overrides).and_then(|composed| check(&composed).map(|()| composed));
        let error = match checked {
            Ok(composed) if num_runs(project, &composed)? > 1 => {
                sweep(project, check, root, config_name, &overrides).map(|_| needs.clone())
            }
            Ok(_) => return Ok(needs),
            Err(error) => Err(error),
        };
        match error {
            Err(error) if error.needs().is_some_and(|key| !needs.iter().any(|known| known == key)) => {
                let key = error.needs().unwrap_or_default().to_string();
                overrides.push(format!("++{key}={GIVEN}"));
                needs.push(key);
            }
            finished => return finished,
        }
    }
}
