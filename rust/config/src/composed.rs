//! The finished configuration: values without references, each with its history.

use crate::{
    Composition, Node, Origin, Problem, ProblemKind, Source, apply, extract, interpolation, problem::Result, word_key,
    yaml,
};
use serde::de::DeserializeOwned;
use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

impl Composition {
    /// Replaces all references by what they name.
    ///
    /// # Errors
    /// A reference that cannot be resolved.
    pub fn resolve(self) -> Result<Composed> {
        let tree = interpolation::Resolver::new(&self.tree).tree()?;
        Ok(Composed { raw: self, tree })
    }

    /// The values with their references, as YAML.
    pub fn to_yaml(&self) -> String {
        yaml::emit(&self.tree)
    }

    /// Which option each group has: `group` or `group@package` to the option's name, none for `null`.
    pub fn choices(&self) -> &BTreeMap<String, Option<String>> {
        &self.choices
    }

    /// The files in the order in which they were merged, each with the dotted place of its values.
    pub fn files(&self) -> &[(PathBuf, String)] {
        &self.files
    }

    /// Whether a file of the tree is an option of a group, or of a group inside it.
    pub fn is_option_of(&self, file: &Path, group: &str) -> bool {
        let below = self.root.as_deref().and_then(|root| file.strip_prefix(root).ok());
        below.is_some_and(|below| below.starts_with(group))
    }

    /// The values with their references.
    pub fn tree(&self) -> &Node {
        &self.tree
    }

    /// The word that removed a key, or a section around it.
    pub(crate) fn removed_by(&self, key: &str) -> Option<&str> {
        let removes = |word: &&String| {
            let rest = key.strip_prefix(word_key(word)).filter(|_| word.starts_with('~'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.words.iter().rev().find(removes).map(String::as_str)
    }
}

/// A composed configuration without references.
#[derive(Debug, Clone)]
pub struct Composed {
    raw: Composition,
    tree: Node,
}

impl Composed {
    /// The typed configuration, checked.
    ///
    /// # Errors
    /// An unknown, missing or mistyped key, or a value that cannot be meant: with the key's full path and the place
    /// that set it.
    pub fn extract<T: DeserializeOwned + crate::Check>(&self) -> Result<T> {
        extract::extract(self)
    }

    /// The error with the place that set the value which it is about, for mistakes that show only later: a folder that is not there.
    #[must_use]
    pub fn locate(&self, error: Problem) -> Problem {
        match error.key().and_then(|key| extract::nearest(&self.tree, key)) {
            Some(node) => error.at(&node.origin),
            None => error,
        }
    }

    /// The values as YAML, such that [`from_resolved`](crate::from_resolved) and Hydra read them back unchanged.
    pub fn to_yaml(&self) -> String {
        yaml::emit(&escaped(&self.tree))
    }

    /// The words that changed the files' values, as typed.
    pub fn overrides(&self) -> &[String] {
        &self.raw.words
    }

    /// The word that set a key's value, or removed the key; none where a file has the last say.
    pub fn changed_by(&self, key: &str) -> Option<&str> {
        match self.raw.tree.get(key).map(|node| &node.origin.source) {
            Some(Source::Word(word)) => Some(word),
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

    /// Where a value comes from and what it overrode.
    ///
    /// # Errors
    /// There is no such key.
    pub fn explain(&self, key: &str) -> Result<Explanation> {
        let node = self.tree.get(key).ok_or_else(|| {
            if let Some(word) = self.raw.removed_by(key) {
                let message = format!("there is no key '{key}': the word '{word}' removed it");
                return Problem::of(ProblemKind::UnknownKey, message)
                    .hint("leave the word out to see what set the key");
            }
            let error = Problem::of(ProblemKind::UnknownKey, format!("there is no key '{key}'"));
            let hint = apply::suggestion(&self.raw.project, &self.tree, key);
            error.hint(hint.unwrap_or_else(|| "`hlrp config show` lists the keys".into()))
        })?;
        let raw = self.raw.tree.get(key).filter(|raw| raw.is_interpolation());
        let is_section = node.as_map().is_some_and(|map| !map.is_empty());
        let parts = if is_section { node.values(key) } else { Vec::new() };
        Ok(Explanation {
            key: key.to_string(),
            value: node.summary(),
            reference: raw.map(Node::summary),
            origin: node.origin.clone(),
            overrode: node.overrode.iter().rev().cloned().collect(),
            parts: parts.into_iter().map(|(key, node)| (key, node.summary(), node.origin.clone())).collect(),
        })
    }
}

/// References are done, so a `${` that is left is text.
fn escaped(node: &Node) -> Node {
    use crate::Value;
    let value = match &node.value {
        Value::Str(text) => Value::Str(interpolation::escape(text)),
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
    /// The place that set it.
    pub origin: Origin,
    /// The values it overrode, newest first.
    pub overrode: Vec<(String, Origin)>,
    /// Of a section: the path of each value in it, the value, and the place that set it.
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
