//! The tree of values, each with what set it and the values that it overrode.

use crate::origin::Origin;
use crate::python;
use indexmap::IndexMap;

/// A mandatory value that no file has set yet.
pub(crate) const MISSING: &str = "???";

/// Whether a whole number fits 64 bits, signed or unsigned, as JSON and typed fields require.
pub(crate) fn fits_64_bits(value: i128) -> bool {
    i64::try_from(value).is_ok() || u64::try_from(value).is_ok()
}

/// A value of the tree.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A whole number that fits 64 bits, signed or unsigned.
    Int(i128),
    /// A number with a fraction or an exponent, infinity, or NaN.
    Float(f64),
    /// Text; references (`${...}`) are text until they are resolved.
    Str(String),
    /// A list.
    List(Vec<Node>),
    /// A section: keys in the order in which they were first set.
    Map(IndexMap<String, Node>),
}

/// A value and its history.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// What set it.
    pub origin: Origin,
    /// What it overrode, oldest first: the value as text and what had set it.
    pub overrode: Vec<(String, Origin)>,
}

impl Node {
    pub(crate) fn new(value: Value, origin: Origin) -> Self {
        Self { value, origin, overrode: Vec::new() }
    }

    pub(crate) fn empty_map(origin: Origin) -> Self {
        Self::new(Value::Map(IndexMap::new()), origin)
    }

    pub(crate) fn as_map(&self) -> Option<&IndexMap<String, Node>> {
        match &self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    pub(crate) fn as_map_mut(&mut self) -> Option<&mut IndexMap<String, Node>> {
        match &mut self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The text of a value that is text.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn is_container(&self) -> bool {
        matches!(self.value, Value::List(_) | Value::Map(_))
    }

    pub(crate) fn is_missing(&self) -> bool {
        self.as_str() == Some(MISSING)
    }

    pub(crate) fn is_interpolation(&self) -> bool {
        self.as_str().is_some_and(|text| text.contains("${"))
    }

    /// The child under a key or, in a list, at an index.
    pub(crate) fn child(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(map) => map.get(key),
            Value::List(list) => list.get(key.parse::<usize>().ok()?),
            _ => None,
        }
    }

    pub(crate) fn child_mut(&mut self, key: &str) -> Option<&mut Node> {
        match &mut self.value {
            Value::Map(map) => map.get_mut(key),
            Value::List(list) => list.get_mut(key.parse::<usize>().ok()?),
            _ => None,
        }
    }

    /// The node at a dotted path; the root for an empty path.
    pub fn get(&self, path: &str) -> Option<&Node> {
        if path.is_empty() {
            return Some(self);
        }
        path.split('.').try_fold(self, |node, key| node.child(key))
    }

    /// The node at a path, or its nearest ancestor that exists.
    pub(crate) fn nearest(&self, path: &str) -> Option<&Node> {
        let mut path = path;
        loop {
            if let Some(node) = self.get(path) {
                return Some(node);
            }
            path = path.rsplit_once('.')?.0;
        }
    }

    pub(crate) fn get_mut(&mut self, path: &str) -> Option<&mut Node> {
        if path.is_empty() {
            return Some(self);
        }
        path.split('.').try_fold(self, |node, key| node.child_mut(key))
    }

    /// This node instead of `old`, which becomes its history.
    pub(crate) fn replacing(mut self, old: &Node) -> Self {
        self.overrode = old.overrode.clone();
        self.overrode.push((old.summary(), old.origin.clone()));
        self
    }

    /// The value in one line, as a user would type it.
    pub fn summary(&self) -> String {
        match &self.value {
            Value::Null => "null".into(),
            Value::Bool(value) => value.to_string(),
            Value::Int(value) => value.to_string(),
            Value::Float(value) => python::float_repr(*value),
            Value::Str(text) if text.is_empty() => "''".into(),
            Value::Str(text) => text.clone(),
            Value::List(items) => format!("[{}]", items.iter().map(Node::summary).collect::<Vec<_>>().join(",")),
            Value::Map(map) => {
                let pairs = map.iter().map(|(key, node)| format!("{key}:{}", node.summary()));
                format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
            }
        }
    }

    /// All values in this one with their dotted paths, `path` being its own: of a section those inside it, else itself.
    pub fn values(&self, path: &str) -> Vec<(String, &Node)> {
        match &self.value {
            Value::Map(map) if !map.is_empty() => {
                map.iter().flat_map(|(key, child)| child.values(&join(path, key))).collect()
            }
            _ => vec![(path.to_owned(), self)],
        }
    }

    /// The values as JSON. Infinity and NaN, which JSON lacks, become the text `Infinity`, `-Infinity` or `NaN`: null would be another
    /// value.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::{Number, Value as Json};
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Int(value) => match (i64::try_from(*value), u64::try_from(*value)) {
                (Ok(value), _) => Json::Number(value.into()),
                (_, Ok(value)) => Json::Number(value.into()),
                _ => Json::String(value.to_string()),
            },
            Value::Float(value) => {
                Number::from_f64(*value).map_or_else(|| Json::String(python::json_text(*value).into()), Json::Number)
            }
            Value::Str(text) => Json::String(text.clone()),
            Value::List(items) => Json::Array(items.iter().map(Node::to_json).collect()),
            Value::Map(map) => Json::Object(map.iter().map(|(key, child)| (key.clone(), child.to_json())).collect()),
        }
    }

    /// The values of a JSON tree, all set by `origin`.
    pub fn from_json(json: &serde_json::Value, origin: &Origin) -> Self {
        use serde_json::Value as Json;
        let value = match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(value), ..) => Value::Int(value.into()),
                (_, Some(value), _) => Value::Int(value.into()),
                (_, _, value) => Value::Float(value.unwrap_or(f64::NAN)),
            },
            Json::String(text) => Value::Str(text.clone()),
            Json::Array(items) => Value::List(items.iter().map(|item| Self::from_json(item, origin)).collect()),
            Json::Object(map) => {
                Value::Map(map.iter().map(|(key, child)| (key.clone(), Self::from_json(child, origin))).collect())
            }
        };
        Self::new(value, origin.clone())
    }

    /// Calls `visit` with the dotted path of every value that is not a filled list or section.
    pub fn for_each_leaf<'a>(&'a self, visit: &mut impl FnMut(&str, &'a Node)) {
        fn walk<'a>(node: &'a Node, path: &str, visit: &mut impl FnMut(&str, &'a Node)) {
            match &node.value {
                Value::Map(map) if !map.is_empty() || path.is_empty() => {
                    map.iter().for_each(|(key, child)| walk(child, &join(path, key), visit));
                }
                Value::List(items) if !items.is_empty() => {
                    items.iter().enumerate().for_each(|(i, child)| walk(child, &join(path, &i.to_string()), visit));
                }
                _ => visit(path, node),
            }
        }
        walk(self, "", visit);
    }
}

/// `a.b` and `c` make `a.b.c`.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_string() } else { format!("{path}.{key}") }
}
