//! The finished configuration: values without references, each with its history.

use crate::composition::Composition;
use crate::interpolation::parse::escape;
use crate::interpolation::resolve::Resolver;
use crate::node::{Node, Value};
use crate::origin::{Origin, Source};
use crate::problem::{Problem, ProblemKind, Result};
use crate::secret::redact_value;
use crate::{suggest, yaml};
use std::{fmt, path::Path, sync::Arc};

impl Composition {
    /// Replaces all references by what they name.
    ///
    /// # Errors
    /// A reference that cannot be resolved.
    pub fn resolve(self) -> Result<Composed> {
        let tree = Resolver::new(&self.tree).tree()?;
        tree.remember_secrets();
        Ok(Composed { raw: self, tree })
    }
}

/// A composed configuration without references.
#[derive(Debug, Clone)]
pub struct Composed {
    raw: Composition,
    tree: Node,
}

impl Composed {
    /// The error with what set its value, for one that is only noticed later, such as a folder that does not exist.
    #[must_use]
    pub fn locate(&self, error: Problem) -> Problem {
        match error.key().and_then(|key| self.tree.nearest(key)) {
            Some(node) => error.at(&node.origin),
            None => error,
        }
    }

    /// The values as YAML, such that [`from_resolved`](crate::from_resolved) and Hydra read them back unchanged, except for secrets, which
    /// are written as `***`.
    pub fn to_yaml(&self) -> String {
        yaml::emit(&escaped(&self.tree.redacted("")))
    }

    /// What has changed in a finished configuration of an older version, one line per key.
    pub fn migrated(&self) -> &[String] {
        &self.raw.migrated
    }

    /// The overrides that changed the files' values, as typed.
    pub fn overrides(&self) -> &[String] {
        &self.raw.overrides
    }

    /// The override that set a key's value, or removed the key; none where a file did.
    pub fn changed_by(&self, key: &str) -> Option<&str> {
        match self.raw.tree.get(key).map(|node| &node.origin.source) {
            Some(Source::Override(argument)) => Some(argument),
            Some(Source::File(_)) => None,
            None => self.raw.removed_by(key),
        }
    }

    /// The values.
    pub fn tree(&self) -> &Node {
        &self.tree
    }

    /// The composition before references were resolved.
    pub fn raw(&self) -> &Composition {
        &self.raw
    }

    /// What set a value, and what it overrode.
    ///
    /// # Errors
    /// There is no such key.
    pub fn explain(&self, key: &str) -> Result<Explanation> {
        let node = self.tree.get(key).ok_or_else(|| {
            if let Some(argument) = self.raw.removed_by(key) {
                let message = format!("unknown key '{key}': the override '{argument}' removed it");
                return Problem::of(ProblemKind::UnknownKey, message).hint("leave it out to see what set the key");
            }
            let error = Problem::of(ProblemKind::UnknownKey, format!("unknown key '{key}'"));
            let hint = suggest::suggestion(&self.raw.project, &self.tree, key);
            error.hint(hint.unwrap_or_else(|| "`hlrp config show` lists the keys".into()))
        })?;
        let raw = self.raw.tree.get(key).filter(|raw| raw.is_interpolation());
        let is_section = node.as_map().is_some_and(|map| !map.is_empty());
        let shown = node.redacted(key);
        let parts = if is_section { shown.values(key) } else { Vec::new() };
        let former = |(text, origin): &(String, Origin)| (redact_value(key, text), origin.clone());
        Ok(Explanation {
            key: key.to_string(),
            value: shown.summary(),
            reference: raw.map(Node::summary),
            origin: node.origin.clone(),
            overrode: node.overrode.iter().rev().map(former).collect(),
            parts: parts.into_iter().map(|(key, node)| (key, node.summary(), node.origin.clone())).collect(),
        })
    }
}

/// References are resolved, so a `${` that is left is text.
fn escaped(node: &Node) -> Node {
    let value = match &node.value {
        Value::Str(text) => Value::Str(escape(text)),
        Value::List(items) => Value::List(items.iter().map(escaped).collect()),
        Value::Map(map) => Value::Map(map.iter().map(|(key, child)| (key.clone(), escaped(child))).collect()),
        other => other.clone(),
    };
    Node { value, ..node.clone() }
}

/// The history of one value; its text is what `hlrp config explain` prints.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// The dotted path.
    pub key: String,
    /// The value.
    pub value: String,
    /// The reference it was resolved from.
    pub reference: Option<String>,
    /// What set it.
    pub origin: Origin,
    /// The values it overrode, newest first.
    pub overrode: Vec<(String, Origin)>,
    /// Of a section: the path of each value in it, the value, and what set it.
    pub parts: Vec<(String, String, Origin)>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.parts.is_empty() {
            return self
                .parts
                .iter()
                .try_for_each(|(key, value, origin)| writeln!(f, "{key} = {value}  set by {origin}"));
        }
        writeln!(f, "{} = {}", self.key, self.value)?;
        match &self.reference {
            Some(reference) => writeln!(f, "  set by    {}  as {reference}", self.origin)?,
            None => writeln!(f, "  set by    {}", self.origin)?,
        }
        for (value, origin) in &self.overrode {
            writeln!(f, "  overrode  {value}  from {origin}")?;
        }
        Ok(())
    }
}

/// Reads YAML text into plain values, for example to compare two resolved configurations. `path` is for messages.
///
/// # Errors
/// Text that is not YAML, with its line.
pub fn read_yaml(text: &str, path: &Path) -> Result<serde_json::Value> {
    Ok(yaml::parse(text, &Arc::new(path.to_path_buf()))?.root.to_json())
}
