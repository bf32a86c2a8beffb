//! One tree over another: sections are merged, everything else is replaced.

use crate::interpolation::resolve::Resolver;
use crate::node::{Node, Value, join};
use crate::problem::{Problem, ProblemKind, Result};

/// Merges `newer` over `older`, whose path is `path`. A missing value (`???`) does not override one that is set.
///
/// # Errors
/// A list over a section or a section over a list: one of the two is an error.
pub(crate) fn merge(older: &mut Node, newer: Node, path: &str) -> Result<()> {
    if newer.is_missing() {
        return Ok(());
    }
    let Node { value, origin, overrode } = newer;
    match (&mut older.value, value) {
        (Value::Map(old), Value::Map(new)) => {
            for (key, node) in new {
                match old.get_mut(&key) {
                    Some(existing) => merge(existing, node, &join(path, &key))?,
                    None => {
                        old.insert(key, node);
                    }
                }
            }
        }
        (Value::Map(_), Value::List(_)) => {
            return Err(mismatch(path, "a list cannot replace a section", older).at(&origin));
        }
        (Value::List(_), Value::Map(_)) => {
            return Err(mismatch(path, "a section cannot replace a list", older).at(&origin));
        }
        (_, value) => *older = Node { value, origin, overrode }.replacing(older),
    }
    Ok(())
}

fn mismatch(path: &str, message: &str, older: &Node) -> Problem {
    Problem::of(ProblemKind::Type, format!("{path}: {message}")).hint(format!("it was set at {}", older.origin))
}

/// Where `newer` has a section over a reference of `tree` to a section, replaces the reference by a copy of that section,
/// so that the two can be merged.
pub(crate) fn follow_references(tree: &mut Node, newer: &Node) {
    let mut sections = Vec::new();
    collect(newer, "", &mut sections);
    for path in sections {
        let Some(node) = tree.get(&path).filter(|node| node.is_interpolation()) else { continue };
        let target = Resolver::new(tree).target(node, &path).filter(|target| target.as_map().is_some()).cloned();
        if let (Some(target), Some(place)) = (target, tree.get_mut(&path)) {
            *place = Node::new(target.value, target.origin);
        }
    }
}

/// Paths of all sections, outer ones first.
fn collect(node: &Node, path: &str, paths: &mut Vec<String>) {
    for (key, child) in node.as_map().into_iter().flatten().filter(|(_, child)| child.as_map().is_some()) {
        let path = join(path, key);
        paths.push(path.clone());
        collect(child, &path, paths);
    }
}
