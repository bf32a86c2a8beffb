//! Replacing references by what they name.

use super::parse::{Argument, Part, Reference, parse, unreadable};
use super::resolvers;
use crate::node::{Node, Value, join};
use crate::overrides::parser::typed_value;
use crate::problem::{Problem, ProblemKind, Result};
use crate::{python, suggest};
use std::{borrow::Cow, cell::RefCell};

/// Stands in a path for a dot that belongs to a key, as in `training.optimizer.lr: [1, 2]` below `sweep.params`; in a
/// message it reads as one.
const DOT_OF_KEY: &str = "\u{2024}";

/// Resolves the references of one tree.
pub(crate) struct Resolver<'a> {
    root: &'a Node,
    /// Paths under evaluation, to find cycles.
    stack: RefCell<Vec<String>>,
}

impl<'a> Resolver<'a> {
    pub(crate) fn new(root: &'a Node) -> Self {
        Self { root, stack: RefCell::default() }
    }

    /// The whole tree without references. Values that are still to be set (`???`) stay.
    ///
    /// # Errors
    /// A reference to nothing, to a value that is not set, or to itself; an unknown resolver; a missing environment
    /// variable.
    pub(crate) fn tree(&self) -> Result<Node> {
        self.node(self.root, "")
    }

    /// The resolved node at a dotted path; none when there is none.
    pub(crate) fn select(&self, path: &str) -> Result<Option<Node>> {
        let found = self.find(path)?;
        found.map(|node| self.node(&node, path)).transpose()
    }

    /// The node at a dotted path; references on the way are followed, and the node itself if it is one, but not those
    /// inside it.
    pub(crate) fn find(&self, path: &str) -> Result<Option<Cow<'a, Node>>> {
        let mut node = Cow::Borrowed(self.root);
        let mut walked = String::new();
        for key in path.split('.') {
            walked = join(&walked, key);
            let key = &key.replace(DOT_OF_KEY, ".");
            let child = match &node {
                Cow::Borrowed(node) => node.child(key).map(Cow::Borrowed),
                Cow::Owned(node) => node.child(key).cloned().map(Cow::Owned),
            };
            node = match child {
                Some(child) if child.is_interpolation() => Cow::Owned(self.node(&child, &walked)?),
                Some(child) => child,
                None => return Ok(None),
            };
        }
        Ok(Some(node))
    }

    /// The unresolved node that a value names which is one plain reference and nothing else.
    pub(crate) fn target(&self, node: &Node, path: &str) -> Option<&'a Node> {
        let parts = parse(node.as_str()?).ok()?;
        let [Part::Reference(Reference::Path(target))] = parts.as_slice() else { return None };
        let Value::Str(target) = self.as_text(target, path).ok()? else { return None };
        self.root.get(&absolute(target.trim(), path)?)
    }

    fn node(&self, node: &Node, path: &str) -> Result<Node> {
        let value = match &node.value {
            Value::Str(text) if node.is_interpolation() => return self.guarded(node, text, path),
            Value::List(items) => {
                let items = items.iter().enumerate().map(|(i, item)| self.node(item, &join(path, &i.to_string())));
                Value::List(items.collect::<Result<_>>()?)
            }
            Value::Map(map) => {
                let path_of = |key: &str| join(path, &key.replace('.', DOT_OF_KEY));
                let pairs = map.iter().map(|(key, child)| Ok((key.clone(), self.node(child, &path_of(key))?)));
                Value::Map(pairs.collect::<Result<_>>()?)
            }
            other => other.clone(),
        };
        Ok(Node { value, origin: node.origin.clone(), overrode: node.overrode.clone() })
    }

    /// Evaluates a text with references, unless that is what is being done already.
    fn guarded(&self, node: &Node, text: &str, path: &str) -> Result<Node> {
        if let Some(start) = self.stack.borrow().iter().position(|open| open == path) {
            let mut chain = self.stack.borrow()[start..].to_vec();
            chain.push(path.to_string());
            let message = format!("references in a circle: {}", chain.join(" -> "));
            let error = Problem::of(ProblemKind::Interpolation, message).at(&node.origin);
            return Err(error.hint("set one of these keys to a value"));
        }
        self.stack.borrow_mut().push(path.to_string());
        let value = self.text(text, path).map_err(|error| error.at(&node.origin));
        self.stack.borrow_mut().pop();
        Ok(Node { value: value?, origin: node.origin.clone(), overrode: node.overrode.clone() })
    }

    fn text(&self, text: &str, path: &str) -> Result<Value> {
        let parts = parse(text).map_err(|reason| unreadable(text, &reason))?;
        self.parts(&parts, path)
    }

    /// One reference keeps its type; several parts become text.
    fn parts(&self, parts: &[Part], path: &str) -> Result<Value> {
        if let [Part::Reference(reference)] = parts {
            return self.reference(reference, path);
        }
        let mut text = String::new();
        for part in parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Reference(reference) => match self.reference(reference, path)? {
                    Value::Str(part) => text.push_str(&part),
                    Value::Int(part) => text.push_str(&part.to_string()),
                    Value::Float(part) => text.push_str(&python::float_repr(part)),
                    Value::Bool(part) => text.push_str(if part { "True" } else { "False" }),
                    value @ (Value::Null | Value::List(_) | Value::Map(_)) => {
                        let value = Node::new(value, self.root.origin.clone()).summary();
                        let message = format!("{path}: the reference {} inside text is {value}", describe(reference));
                        let hint = "set what it names to text or a number, or make the reference the whole value";
                        return Err(Problem::of(ProblemKind::Interpolation, message).hint(hint));
                    }
                },
            }
        }
        Ok(Value::Str(text))
    }

    fn reference(&self, reference: &Reference, path: &str) -> Result<Value> {
        match reference {
            Reference::Path(parts) => {
                let Value::Str(target) = self.as_text(parts, path)? else { return Ok(Value::Null) };
                self.named(target.trim(), path, reference)
            }
            Reference::Call { name, arguments } => self.call(name, arguments, path),
        }
    }

    fn as_text(&self, parts: &[Part], path: &str) -> Result<Value> {
        match self.parts(parts, path)? {
            text @ Value::Str(_) => Ok(text),
            other => Ok(Value::Str(Node::new(other, self.root.origin.clone()).summary())),
        }
    }

    /// What a path names, seen from the value at `path`.
    fn named(&self, target: &str, path: &str, reference: &Reference) -> Result<Value> {
        let absolute = absolute(target, path);
        let unresolved = |kind, message: String| Problem::of(kind, format!("{path}: {message}"));
        let Some(absolute) = absolute else {
            let error = unresolved(ProblemKind::Interpolation, format!("{} leads above the root", describe(reference)));
            return Err(error.hint("use fewer dots"));
        };
        let found = if absolute.is_empty() { Some(self.tree()?) } else { self.select(&absolute)? };
        match found {
            Some(node) if node.is_missing() => {
                let message = format!("'{absolute}', which {} names, must be set", describe(reference));
                Err(unresolved(ProblemKind::MissingKey, message).hint(format!("add {absolute}=...")))
            }
            Some(node) => Ok(node.value),
            None => {
                let error = unresolved(ProblemKind::Interpolation, format!("{} names no key", describe(reference)));
                let hint = suggest::similar_key(self.root, &absolute);
                Err(error.hint(hint.unwrap_or_else(|| format!("set {absolute}, or correct the reference"))))
            }
        }
    }

    fn call(&self, name: &str, arguments: &[Argument], path: &str) -> Result<Value> {
        let evaluate = |argument: &Argument| -> Result<Value> {
            let value = self.parts(&argument.parts, path)?;
            Ok(match (&value, argument.parts.as_slice()) {
                (Value::Str(text), [] | [Part::Text(_)]) if !argument.is_quoted => {
                    typed_value(text, &self.root.origin).unwrap_or(value)
                }
                _ => value,
            })
        };
        if name == "oc.select" {
            let [target, rest @ ..] = arguments else {
                return Err(resolvers::wrong_arguments(path, "oc.select", "a path and, if wanted, a default"));
            };
            let Value::Str(target) = self.as_text(&target.parts, path)? else { return Ok(Value::Null) };
            let absolute = absolute(target.trim(), path).unwrap_or_default();
            let found = self.select(&absolute)?.filter(|node| !node.is_missing());
            return match (found, rest) {
                (Some(node), _) => Ok(node.value),
                (None, [default]) => evaluate(default),
                (None, _) => Ok(Value::Null),
            };
        }
        let values = arguments.iter().map(evaluate).collect::<Result<Vec<_>>>()?;
        resolvers::call(name, &values, path)
    }
}

/// The path as typed, for messages.
fn describe(reference: &Reference) -> String {
    fn text(parts: &[Part]) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Reference(reference) => describe(reference),
        };
        parts.iter().map(part).collect()
    }
    match reference {
        Reference::Path(parts) => format!("${{{}}}", text(parts)),
        Reference::Call { name, arguments } => {
            let arguments: Vec<String> = arguments.iter().map(|argument| text(&argument.parts)).collect();
            format!("${{{name}:{}}}", arguments.join(","))
        }
    }
}

/// A path relative to the value at `path` (one dot: its section, each further dot: one section up) as an absolute one.
/// `a[b].c` is `a.b.c`. None when the dots lead above the root.
fn absolute(target: &str, path: &str) -> Option<String> {
    let num_dots = target.chars().take_while(|&c| c == '.').count();
    let mut base: Vec<&str> = Vec::new();
    if num_dots > 0 {
        base = path.split('.').filter(|part| !part.is_empty()).collect();
        for _ in 0..num_dots {
            base.pop()?;
        }
    }
    let rest = target[num_dots..].replace('[', ".").replace(']', "");
    base.extend(rest.split('.').filter(|part| !part.is_empty()));
    Some(base.join("."))
}
