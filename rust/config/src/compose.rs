//! Composition: from a folder of files and the words of a command line to one tree of values.

use crate::{
    Composed, Node, Origin, Problem, ProblemKind, Project, Value,
    apply::apply,
    defaults::{self, Choices},
    merge::{follow_references, merge},
    overrides::{self, Override},
    problem::Result,
    repository::Repository,
    suggest, yaml,
};
use indexmap::IndexMap;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A composition before its references are resolved.
#[derive(Debug, Clone)]
pub struct Composition {
    pub(crate) project: Project,
    pub(crate) tree: Node,
    pub(crate) words: Vec<String>,
    pub(crate) choices: BTreeMap<String, Option<String>>,
    /// The folder of the tree; none for a finished configuration.
    pub(crate) root: Option<PathBuf>,
    /// The file that holds what no other file declares: named in errors about missing keys.
    pub(crate) primary: PathBuf,
    /// Files in merge order, with the package of each.
    pub(crate) files: Vec<(PathBuf, String)>,
}

/// Composes the tree below `root` from its primary file `config_name` (without `.yaml`) and `overrides`, and resolves
/// all references.
///
/// # Errors
/// Any mistake in a file, an override or a reference; see [`Problem`].
pub fn compose(project: &Project, root: &Path, config_name: &str, overrides: &[String]) -> Result<Composed> {
    compose_raw(project, root, config_name, overrides)?.resolve()
}

/// Like [`compose`], with references still in place.
///
/// # Errors
/// Any mistake in a file or an override.
pub fn compose_raw(project: &Project, root: &Path, config_name: &str, overrides: &[String]) -> Result<Composition> {
    let repository = Repository::open(root)?;
    let parsed = overrides.iter().map(|word| overrides::parse(word)).collect::<Result<Vec<_>>>()?;
    let (mut choices, values) = Choices::from_words(&repository, parsed)?;
    let config_name = config_name.strip_suffix(".yaml").unwrap_or(config_name);
    let included = defaults::expand(&repository, config_name, &mut choices)?;
    let primary = repository.file(config_name);
    let mut tree = Node::empty_map(Origin::file(&Arc::new(primary.clone()), 1));
    for file in &included {
        let Some(document) = repository.load(&file.file)? else { continue };
        let values = packaged(document.root.clone(), &file.package);
        follow_references(&mut tree, &values);
        merge(&mut tree, values, "")?;
    }
    // Hydra's own section configures Hydra and is no part of the result.
    tree.as_map_mut().map(|map| map.shift_remove("hydra"));
    for value in &values {
        if value.key == "hydra" || value.key.starts_with("hydra.") {
            let message =
                format!("'{}': the section hydra configures Hydra itself, which does not run here", value.word);
            let hint = "for hydra.run.dir use logging.run_dir";
            return Err(Problem::of(ProblemKind::UnknownKey, message).hint(hint));
        }
        apply(project, &mut tree, value)
            .map_err(|error| misspelt_group(&repository, value).map_or(error.clone(), |hint| error.hint(hint)))?;
    }
    let files = included.iter().map(|file| (repository.file(&file.file), file.package.clone())).collect();
    Ok(Composition {
        project: *project,
        tree,
        words: overrides.to_vec(),
        choices: choices.known,
        root: Some(root.to_path_buf()),
        primary,
        files,
    })
}

/// Reads a resolved `config.yaml`, for example that of a run to resume, and applies value overrides to it. A file of an older version is
/// brought up to date first; its values then have no lines.
///
/// # Errors
/// Any mistake in the file or an override; a group choice, because the file holds no groups any more.
pub fn from_resolved(project: &Project, path: &Path, overrides: &[String]) -> Result<Composed> {
    let file = Arc::new(path.to_path_buf());
    let text = fs::read_to_string(path).map_err(|error| {
        let message = format!("cannot read {}: {error}", path.display());
        Problem::of(ProblemKind::File, message).hint("name a run directory that holds a config.yaml")
    })?;
    let mut tree = yaml::parse(&text, &file)?.root;
    let mut values = tree.to_json();
    if (project.migrate)(&mut values) {
        tree = Node::from_json(&values, &Origin::file(&file, 1));
    }
    for word in overrides {
        let change = overrides::parse(word)?;
        if change.key.contains('/') || change.package.is_some() {
            let message = format!("'{word}' chooses an option, but {} is a finished configuration", path.display());
            return Err(Problem::of(ProblemKind::Defaults, message).hint("override single keys: a.b=value"));
        }
        if replaces_section(&tree, &change) {
            let message = format!(
                "'{word}' chooses an option of the group '{}', but groups cannot be changed in {}",
                change.key,
                path.display()
            );
            let hint = format!("a resumed run keeps its groups; override single keys: {}.KEY=value", change.key);
            return Err(Problem::of(ProblemKind::Defaults, message).hint(hint));
        }
        apply(project, &mut tree, &change)?;
    }
    let composition = Composition {
        project: *project,
        tree,
        words: overrides.to_vec(),
        choices: BTreeMap::new(),
        root: None,
        primary: path.to_path_buf(),
        files: vec![(path.to_path_buf(), String::new())],
    };
    composition.resolve()
}

/// Whether a word puts plain text in the place of a whole section, as the choice of an option does.
fn replaces_section(tree: &Node, change: &Override) -> bool {
    let section = tree.get(&change.key).is_some_and(|node| node.as_map().is_some());
    section && matches!(&change.value, Some(Value::Str(text)) if !text.contains("${"))
}

/// A suggestion for a changed key of a single word that may have meant a group.
fn misspelt_group(repository: &Repository, word: &Override) -> Option<String> {
    let with_slashes = word.key.replace('.', "/");
    if word.key.contains('.') && repository.is_group(&with_slashes) {
        return Some(format!(
            "'{with_slashes}' is a group: did you mean '{}'?",
            word.word.replacen(&word.key, &with_slashes, 1)
        ));
    }
    let groups = repository.groups();
    let group = suggest::closest(&word.key, groups.iter().map(String::as_str))?;
    let may_be = word.action == overrides::Action::Change && !word.key.contains('.') && group != word.key;
    may_be.then(|| format!("did you mean '{group}'?"))
}

/// A file's values at their place, without its `defaults` list.
fn packaged(mut values: Node, package: &str) -> Node {
    values.as_map_mut().map(|map| map.shift_remove("defaults"));
    let origin = values.origin.clone();
    package
        .split('.')
        .rev()
        .filter(|key| !key.is_empty())
        .fold(values, |inner, key| Node::new(Value::Map(IndexMap::from([(key.to_string(), inner)])), origin.clone()))
}
