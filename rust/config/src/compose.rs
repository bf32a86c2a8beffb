//! Composition: from a folder of files and the overrides of a command line to one tree of values.

use crate::apply::apply;
use crate::composed::Composed;
use crate::composition::Composition;
use crate::defaults::choices::Choices;
use crate::defaults::expand::expand;
use crate::foreign::read_text;
use crate::merge::{follow_references, merge};
use crate::node::{Node, Value};
use crate::origin::Origin;
use crate::overrides::parser::parse;
use crate::overrides::{Action, Override};
use crate::problem::{Hint, Problem, ProblemKind, Result};
use crate::project::Project;
use crate::repository::Repository;
use crate::{suggest, yaml};
use indexmap::IndexMap;
use std::{collections::BTreeMap, path::Path, sync::Arc};

/// Composes the tree below `root` from its primary file `config_name` (without `.yaml`) and `overrides`, and resolves
/// all references.
///
/// # Errors
/// Any error in a file, an override or a reference; see [`Problem`].
pub fn compose(project: &Project, root: &Path, config_name: &str, overrides: &[String]) -> Result<Composed> {
    compose_raw(project, root, config_name, overrides)?.resolve()
}

/// Like [`compose`], with references still in place.
///
/// # Errors
/// Any error in a file or an override.
pub fn compose_raw(project: &Project, root: &Path, config_name: &str, overrides: &[String]) -> Result<Composition> {
    let repository = Repository::open(root)?;
    let parsed = overrides.iter().map(|argument| parse(argument)).collect::<Result<Vec<_>>>()?;
    let (mut choices, values) = Choices::from_overrides(&repository, parsed)?;
    let config_name = config_name.strip_suffix(".yaml").unwrap_or(config_name);
    let included = expand(&repository, config_name, &mut choices)?;
    let primary = repository.file(config_name);
    let mut tree = Node::empty_map(Origin::file(&Arc::new(primary.clone()), 1));
    for file in &included {
        let Some(document) = repository.load(&file.file)? else { continue };
        let values = packaged(document.root.clone(), &file.package);
        follow_references(&mut tree, &values);
        merge(&mut tree, values, "")?;
    }
    // Hydra's own section configures Hydra and is not part of the result.
    tree.as_map_mut().map(|map| map.shift_remove("hydra"));
    for value in &values {
        if value.key == "hydra" || value.key.starts_with("hydra.") {
            let message =
                format!("'{}': the section hydra configures Hydra itself, which is not used here", value.text);
            let hint = "for hydra.run.dir use logging.run_dir";
            return Err(Problem::of(ProblemKind::UnknownKey, message).hint(hint));
        }
    }
    let files = included.iter().map(|file| (repository.file(&file.file), file.package.clone())).collect();
    let mut composition = Composition {
        project: *project,
        tree,
        overrides: overrides.to_vec(),
        choices: choices.known,
        root: Some(root.to_path_buf()),
        primary,
        files,
        migrated: Vec::new(),
    };
    for value in &values {
        change(&mut composition, value)
            .map_err(|error| misspelt_group(&repository, value).map_or(error.clone(), |hint| error.hint(hint)))?;
    }
    Ok(composition)
}

/// Reads a resolved `config.yaml`, for example that of a run to resume, and applies value overrides to it. A file of an older version is
/// brought up to date first; its values then have no lines.
///
/// # Errors
/// Any error in the file or an override; a group choice, because the file has no groups any more.
pub fn from_resolved(project: &Project, path: &Path, overrides: &[String]) -> Result<Composed> {
    let file = Arc::new(path.to_path_buf());
    let text = read_text(path).map_err(|error| {
        let message = format!("cannot read {}: {error}", path.display());
        Problem::of(ProblemKind::File, message).hint("give a run directory that contains a config.yaml")
    })?;
    let mut tree = yaml::parse(&text, &file)?.root;
    let mut values = tree.to_json();
    let migrated = (project.migrate)(&mut values);
    if !migrated.is_empty() {
        tree = Node::from_json(&values, &Origin::file(&file, 1));
    }
    let mut composition = Composition {
        project: *project,
        tree,
        overrides: overrides.to_vec(),
        choices: BTreeMap::new(),
        root: None,
        primary: path.to_path_buf(),
        files: vec![(path.to_path_buf(), String::new())],
        migrated,
    };
    for argument in overrides {
        let wanted = parse(argument)?;
        if wanted.key.contains('/') || wanted.package.is_some() {
            let message = format!("'{argument}' chooses an option, but {} is a finished configuration", path.display());
            return Err(Problem::of(ProblemKind::Defaults, message).hint("override single keys: a.b=value"));
        }
        if replaces_section(&composition.tree, &wanted) {
            let message = format!(
                "'{argument}' chooses an option of the group '{}', but groups cannot be changed in {}",
                wanted.key,
                path.display()
            );
            let hint = format!("a resumed run keeps its groups; override single keys: {}.KEY=value", wanted.key);
            return Err(Problem::of(ProblemKind::Defaults, message).hint(hint));
        }
        change(&mut composition, &wanted)?;
    }
    composition.resolve()
}

/// Applies an override; an unknown key that resembles none has the hint of its section.
fn change(composition: &mut Composition, wanted: &Override) -> Result<()> {
    let project = composition.project;
    apply(&project, &mut composition.tree, wanted).map_err(|error| match error.key() {
        Some(key) if Hint::hint(&error).is_none() => {
            let hint = hint_for_unknown(composition, wanted, key);
            error.hint(hint)
        }
        _ => error,
    })
}

/// What to do about the unknown key `key` of an override: add it, if the typed form of the configuration takes it; else what that says.
fn hint_for_unknown(composition: &Composition, wanted: &Override, key: &str) -> String {
    let forced = Override { action: Action::Force, ..wanted.clone() };
    let (project, mut trial) = (composition.project, composition.clone());
    let refused = apply(&project, &mut trial.tree, &forced)
        .and_then(|()| trial.resolve())
        .and_then(|composed| (project.check)(&composed));
    let adds = format!("+{} adds it", wanted.text);
    let Err(refusal) = refused else { return adds };
    let is_within = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let other = refusal.key().unwrap_or_default();
    match refusal.kind() {
        // Rules come after the types.
        ProblemKind::Value | ProblemKind::Unset | ProblemKind::Misfit => Some(adds),
        ProblemKind::UnknownKey if is_within(key, other) => Hint::hint(&refusal),
        _ if is_within(other, key) => Some(adds),
        _ => None,
    }
    .unwrap_or_else(|| "`hlrp config show` lists the keys".into())
}

/// Whether an override replaces a whole section by plain text, as the choice of an option does.
fn replaces_section(tree: &Node, change: &Override) -> bool {
    let section = tree.get(&change.key).is_some_and(|node| node.as_map().is_some());
    section && matches!(&change.value, Some(Value::Str(text)) if !text.contains("${"))
}

/// A suggestion for an override of an unknown key that may have meant a group.
fn misspelt_group(repository: &Repository, change: &Override) -> Option<String> {
    let with_slashes = change.key.replace('.', "/");
    if change.key.contains('.') && repository.is_group(&with_slashes) {
        return Some(format!(
            "'{with_slashes}' is a group: did you mean '{}'?",
            change.text.replacen(&change.key, &with_slashes, 1)
        ));
    }
    let groups = repository.groups();
    let group = suggest::closest(&change.key, groups.iter().map(String::as_str))?;
    let may_be = change.action == Action::Change && !change.key.contains('.') && group != change.key;
    may_be.then(|| format!("did you mean '{group}'?"))
}

/// A file's values at their package, without its `defaults` list.
fn packaged(mut values: Node, package: &str) -> Node {
    values.as_map_mut().map(|map| map.shift_remove("defaults"));
    let origin = values.origin.clone();
    package
        .split('.')
        .rev()
        .filter(|key| !key.is_empty())
        .fold(values, |inner, key| Node::new(Value::Map(IndexMap::from([(key.to_string(), inner)])), origin.clone()))
}
