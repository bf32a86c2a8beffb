//! Value overrides on a composed tree, with Hydra's rules about keys that exist and keys that do not.

use crate::interpolation::resolve::Resolver;
use crate::merge::merge;
use crate::node::{Node, Value, join};
use crate::overrides::{Action, Override};
use crate::problem::{Problem, ProblemKind, Result};
use crate::project::Project;
use crate::suggest::suggestion;
use std::borrow::Cow;

/// Applies one override.
///
/// # Errors
/// A change of a key that does not exist, an addition of one that does, a deletion of nothing. The change of a key that no other resembles
/// has no hint.
pub(crate) fn apply(project: &Project, root: &mut Node, change: &Override) -> Result<()> {
    if let Some(package) = &change.package {
        let message =
            format!("'{}@{package}' looks like a group choice, but there is no group '{}'", change.key, change.key);
        return Err(Problem::of(ProblemKind::Defaults, message).hint("`hlrp config list` shows the groups"));
    }
    if change.key.contains('/') {
        let message = format!("there is no group '{}'", change.key);
        return Err(Problem::of(ProblemKind::Defaults, message).hint("`hlrp config list` shows the groups"));
    }
    match change.action {
        Action::Delete => delete(project, root, change),
        Action::Change => set(project, root, change, false),
        Action::Force => set(project, root, change, true),
        Action::Add => {
            let collects = matches!(change.value, Some(Value::Map(_) | Value::List(_)));
            match select(root, &change.key) {
                Some(old) if !collects && !matches!(old.value, Value::Null) && !old.is_missing() => {
                    let message = format!("'{}' exists already, so '{}' cannot add it", change.key, change.text);
                    let bare = change.text.trim_start_matches('+');
                    let hint = format!("write {bare} to change it, or ++{bare} to set it in any case");
                    Err(Problem::of(ProblemKind::UnknownKey, message).at(&old.origin).hint(hint))
                }
                _ => set(project, root, change, true),
            }
        }
    }
}

/// The node at a path, references followed; none where there is none or it cannot be resolved.
fn select<'a>(root: &'a Node, key: &str) -> Option<Cow<'a, Node>> {
    Resolver::new(root).find(key).ok().flatten()
}

fn delete(project: &Project, root: &mut Node, change: &Override) -> Result<()> {
    let found = select(root, &change.key).filter(|node| !matches!(node.value, Value::Null) && !node.is_missing());
    let Some(old) = found else {
        let message = format!("'{}' cannot be deleted: it does not exist", change.key);
        let hint = suggestion(project, root, &change.key).unwrap_or_else(|| "`hlrp config show` lists the keys".into());
        return Err(Problem::of(ProblemKind::UnknownKey, message).hint(hint));
    };
    if let Some(value) = change.value.clone().filter(|value| !matches!(value, Value::Null)) {
        let wanted = Node::new(value, change.origin());
        if !same(&wanted, &old) {
            let message = format!(
                "'{}' is {} and not {}",
                change.key,
                old.redacted(&change.key).summary(),
                wanted.redacted(&change.key).summary()
            );
            let hint = format!("~{} deletes it whatever its value", change.key);
            return Err(Problem::of(ProblemKind::Value, message).at(&old.origin).hint(hint));
        }
    }
    let (parent, last) = change.key.rsplit_once('.').unwrap_or(("", &change.key));
    let removed = match root.get_mut(parent).map(|node| &mut node.value) {
        Some(Value::Map(map)) => map.shift_remove(last).is_some(),
        Some(Value::List(list)) => match last.parse::<usize>() {
            Ok(index) if index < list.len() => {
                list.remove(index);
                true
            }
            _ => false,
        },
        _ => false,
    };
    if removed {
        return Ok(());
    }
    let message = format!("'{}' cannot be deleted: it is reached through a reference", change.key);
    Err(Problem::of(ProblemKind::UnknownKey, message).hint("delete it where it is defined"))
}

/// Equal values, wherever they come from; 1 equals 1.0 as in Python.
fn same(a: &Node, b: &Node) -> bool {
    match (&a.value, &b.value) {
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Map(a), Value::Map(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (Value::Int(a), Value::Float(b)) | (Value::Float(b), Value::Int(a)) => *a as f64 == *b,
        (a, b) => a == b,
    }
}

fn set(project: &Project, root: &mut Node, change: &Override, create: bool) -> Result<()> {
    let keys: Vec<&str> = change.key.split('.').collect();
    let (last, parents) = keys.split_last().expect("a split has at least one part");
    let mut path = String::new();
    let mut node = &mut *root;
    for key in parents {
        path = join(&path, key);
        if !node.child(key).is_some_and(Node::is_container) {
            if !create {
                return Err(unknown_key(project, root, &change.key, change));
            }
            let section = Node::empty_map(change.origin());
            match node.child_mut(key) {
                Some(old) => *old = section.replacing(old),
                None => put(node, key, section, change)?,
            }
        }
        node = node.child_mut(key).expect("put or found above");
    }
    let new = Node::new(change.value.clone().unwrap_or(Value::Null), change.origin());
    match node.child_mut(last) {
        None if !create => Err(unknown_key(project, root, &change.key, change)),
        None => put(node, last, new, change),
        Some(old) => {
            if !create && let Some(inner) = first_unknown(old, &new, &change.key) {
                return Err(unknown_key(project, root, &inner, change));
            }
            if new.is_container() && old.is_container() {
                return merge(old, new, &change.key);
            }
            *old = new.replacing(old);
            Ok(())
        }
    }
}

/// The first key inside `new` that `old` does not have.
fn first_unknown(old: &Node, new: &Node, path: &str) -> Option<String> {
    let (old, new) = (old.as_map()?, new.as_map()?);
    new.iter().find_map(|(key, value)| {
        let path = join(path, key);
        match old.get(key) {
            None => Some(path),
            Some(old) => first_unknown(old, value, &path),
        }
    })
}

/// Adds a key that is not there.
fn put(parent: &mut Node, key: &str, new: Node, change: &Override) -> Result<()> {
    match &mut parent.value {
        Value::Map(map) => {
            map.insert(key.to_string(), new);
            Ok(())
        }
        _ => {
            let message = format!("'{}': the list has no item {key}", change.key);
            let error = Problem::of(ProblemKind::UnknownKey, message).at(&parent.origin);
            Err(error.hint("give the whole list: key=[a,b]"))
        }
    }
}

fn unknown_key(project: &Project, root: &Node, key: &str, change: &Override) -> Problem {
    let message = format!("unknown key '{key}' in '{}'", change.text);
    let error = Problem::of(ProblemKind::UnknownKey, message).about(key);
    match suggestion(project, root, key) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
