//! From values to typed structs, through figment: one figment provider per file or override, so that figment knows where
//! each value comes from.

use crate::composed::Composed;
use crate::node::{Node, Value, join};
use crate::origin::{Origin, Source};
use crate::problem::{Check, Problem, ProblemKind, Result};
use crate::{python, suggest};
use figment::{
    Figment, Metadata, Profile, Provider,
    error::Kind,
    providers::Serialized,
    value::{Dict, Empty, Map, Num, Tag},
};
use serde::de::DeserializeOwned;
use std::{collections::BTreeMap, path::PathBuf};

/// What serde says that a field of type `PathBuf` expects.
const PATH_TYPE: &str = "path string";

impl Composed {
    /// The typed configuration, checked.
    ///
    /// # Errors
    /// An unknown, missing or mistyped key, or an invalid value: with the key's full path and what set it.
    pub fn extract<T: DeserializeOwned + Check>(&self) -> Result<T> {
        let typed: T = self.extract_unchecked()?;
        typed.check().map_err(|problem| self.locate(problem))?;
        Ok(typed)
    }

    /// The typed configuration, whose values may be invalid.
    ///
    /// # Errors
    /// An unknown, missing or mistyped key: with the key's full path and what set it.
    pub fn extract_unchecked<T: DeserializeOwned>(&self) -> Result<T> {
        ensure_all_set(self.tree())?;
        figment(self.tree()).extract().map_err(|error| explain(error, self))
    }

    /// The absolute paths among the values, with their keys: those of the fields of `T` that are typed as paths. Items of lists are not among
    /// them.
    pub fn absolute_paths<T: DeserializeOwned>(&self) -> Vec<(String, PathBuf)> {
        let mut found = Vec::new();
        self.tree().for_each_leaf(&mut |key, node| match &node.value {
            Value::Str(text) if text.starts_with('/') => found.push((key.to_owned(), PathBuf::from(text))),
            _ => {}
        });
        let tree = figment(self.tree());
        // A boolean in its place makes the type of the field say what it expects.
        let is_typed = |key: &str| {
            let error = tree.clone().merge(Serialized::default(key, true)).extract::<T>().err();
            error.is_some_and(|error| matches!(&error.kind, Kind::InvalidType(_, wanted) if wanted == PATH_TYPE))
        };
        found.retain(|(key, _)| is_typed(key));
        found
    }
}

/// # Errors
/// The first value that is still `???`.
fn ensure_all_set(tree: &Node) -> Result<()> {
    let mut first = None;
    tree.for_each_leaf(&mut |path, node| {
        if node.is_missing() && first.is_none() {
            first = Some((path.to_string(), node.origin.clone()));
        }
    });
    match first {
        None => Ok(()),
        Some((path, origin)) => {
            let error = Problem::of(ProblemKind::MissingKey, format!("'{path}' must be set")).at(&origin);
            Err(error.about(&path).hint(format!("add {path}=... or set it in the experiment's file")))
        }
    }
}

/// The values of one source.
struct Layer<'a> {
    source: &'a Source,
    values: Dict,
}

impl Provider for Layer<'_> {
    fn metadata(&self) -> Metadata {
        match self.source {
            Source::File(path) => Metadata::from(path.display().to_string(), path.as_path()),
            Source::Override(argument) => Metadata::from("the command line", argument.as_ref()),
        }
    }

    fn data(&self) -> std::result::Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

/// All values, each in the layer of its source. The layers do not overlap, because overridden values are gone.
fn figment(tree: &Node) -> Figment {
    fn insert(layer: &mut Dict, path: &[&str], value: figment::value::Value) {
        match path {
            [] => {}
            [last] => {
                layer.insert((*last).to_string(), value);
            }
            [first, rest @ ..] => {
                let inner = layer.entry((*first).to_string()).or_insert_with(|| Dict::new().into());
                if let figment::value::Value::Dict(_, inner) = inner {
                    insert(inner, rest, value);
                }
            }
        }
    }
    fn collect<'a>(node: &'a Node, path: &mut Vec<&'a str>, layers: &mut BTreeMap<&'a Source, Dict>) {
        match node.as_map().filter(|map| !map.is_empty()) {
            Some(map) => {
                for (key, child) in map {
                    path.push(key);
                    collect(child, path, layers);
                    path.pop();
                }
            }
            None => insert(layers.entry(&node.origin.source).or_default(), path, value(node)),
        }
    }
    let mut layers = BTreeMap::new();
    collect(tree, &mut Vec::new(), &mut layers);
    layers.into_iter().fold(Figment::new(), |figment, (source, values)| figment.merge(Layer { source, values }))
}

fn value(node: &Node) -> figment::value::Value {
    use figment::value::Value as Out;
    let tag = Tag::Default;
    match &node.value {
        Value::Null => Out::Empty(tag, Empty::None),
        Value::Bool(value) => Out::Bool(tag, *value),
        Value::Int(value) => match (i64::try_from(*value), u64::try_from(*value)) {
            (Ok(value), _) => Out::Num(tag, Num::I64(value)),
            (_, Ok(value)) => Out::Num(tag, Num::U64(value)),
            _ => Out::Num(tag, Num::I128(*value)),
        },
        // As in JSON: a value that goes to LeRobot stays what it is, and no number of ours is infinite.
        Value::Float(value) if !value.is_finite() => Out::String(tag, python::json_text(*value).into()),
        Value::Float(value) => Out::Num(tag, Num::F64(*value)),
        Value::Str(text) => Out::String(tag, text.clone()),
        Value::List(items) => Out::Array(tag, items.iter().map(value).collect()),
        Value::Map(map) => Out::Dict(tag, map.iter().map(|(key, child)| (key.clone(), value(child))).collect()),
    }
}

fn explain(error: figment::Error, composed: &Composed) -> Problem {
    let path = error.path.join(".");
    let tree = composed.tree();
    match &error.kind {
        Kind::UnknownField(name, expected) => {
            let parent = match path.rsplit_once('.') {
                Some((parent, last)) if last == name => parent.to_string(),
                None if path == *name => String::new(),
                _ => path.clone(),
            };
            let key = join(&parent, name);
            let mut error = Problem::of(ProblemKind::UnknownKey, format!("unknown key '{key}'")).about(&key);
            if let Some(node) = tree.get(&key) {
                error = error.at(&node.origin);
                if let Some(file) = file_of_group(&node.origin, name) {
                    let hint = "to set keys of other sections begin the file with the line '# @package _global_'";
                    return error.hint(format!("{file} sets keys below '{key}', the name of its folder; {hint}"));
                }
            }
            let project = &composed.raw().project;
            let written = tree.get(&key).map_or_else(Vec::new, |node| node.values(&key));
            let renamed = [key.clone()].into_iter().chain(written.into_iter().map(|(path, _)| path));
            if let Some(new) = renamed.into_iter().find_map(|path| (project.renamed)(tree, &path)) {
                return error.hint(format!("it was renamed: did you mean '{new}'?"));
            }
            error.hint(match suggest::closest(name, expected.iter().copied()) {
                Some(best) => format!("did you mean '{}'?", join(&parent, best)),
                None => format!("keys there: {}", expected.join(", ")),
            })
        }
        Kind::MissingField(name) => {
            let key = join(&path, name);
            let error = Problem::of(ProblemKind::MissingKey, format!("the key '{key}' is missing")).about(&key);
            if let Some(argument) = composed.raw().removed_by(&key) {
                return error
                    .at(&Origin::command_line(argument))
                    .hint("leave out this override, which removes the key");
            }
            match tree.nearest(&path).map(|section| &section.origin) {
                Some(origin @ Origin { source: Source::Override(_), .. }) => {
                    error.at(origin).hint(format!("give '{name}' in this override as well, or add +{key}=..."))
                }
                _ => error.hint(format!("set it in {}, or add +{key}=...", section_file(composed, &key))),
            }
        }
        kind => {
            let set = tree.get(&path).map(|node| node.redacted(&path).summary());
            let expected = |wanted: String, found: String| format!("expected {wanted}, found {found}");
            let found = |found: &dyn std::fmt::Display| set.clone().unwrap_or_else(|| found.to_string());
            let what = match kind {
                Kind::InvalidType(actual, wanted) => expected(in_words(wanted), found(actual)),
                Kind::InvalidValue(actual, wanted) => expected(in_words(wanted), found(actual)),
                Kind::UnknownVariant(name, known) => format!("unknown value '{name}', expected {}", known.join(", ")),
                Kind::InvalidLength(length, wanted) => expected(in_words(wanted), format!("{length} items")),
                other => other.to_string(),
            };
            let mut result = Problem::of(ProblemKind::Type, what).about(&path);
            if let Some(node) = tree.nearest(&path) {
                result = result.at(&node.origin);
            }
            result.hint(type_hint(kind, &path, composed))
        }
    }
}

/// The file that an origin names, if it is in a folder of this name.
fn file_of_group(origin: &Origin, group: &str) -> Option<String> {
    let Source::File(path) = &origin.source else { return None };
    (path.parent()?.file_name()? == group).then(|| path.display().to_string())
}

/// The name of a type for people.
fn in_words(wanted: &str) -> String {
    match wanted {
        "i64" | "i32" => "a whole number".into(),
        "u64" | "u32" | "usize" => "a whole number from 0 upwards".into(),
        "f64" | "f32" => "a number".into(),
        "a boolean" | "bool" => "true or false".into(),
        "a string" | PATH_TYPE | "string" => "text".into(),
        "a sequence" | "sequence" => "a list".into(),
        "a map" | "map" => "a section of keys".into(),
        other if other.starts_with("struct ") => "a section of keys".into(),
        other => other.into(),
    }
}

/// What to write instead.
fn type_hint(kind: &Kind, path: &str, composed: &Composed) -> String {
    let node = composed.tree().get(path);
    let group = path.replace('.', "/");
    match (kind, node.map(|node| &node.value)) {
        (Kind::UnknownVariant(found, known), _) => match suggest::closest(found, known.iter().copied()) {
            Some(best) => format!("did you mean '{best}'?"),
            None => format!("set {path} to one of them"),
        },
        (Kind::InvalidType(_, wanted), Some(Value::Int(_) | Value::Float(_) | Value::Bool(_)))
            if in_words(wanted) == "text" =>
        {
            let text = node.map(|node| node.redacted(path).summary()).unwrap_or_default();
            if let Some(written) = node.and_then(|node| sexagesimal(&node.origin)) {
                return format!("write \"{written}\" in quotes (YAML 1.1 reads {written} as {text})");
            }
            format!("quote it to make it text: {path}='\"{text}\"'")
        }
        (_, Some(Value::Str(option))) if composed.raw().choices().contains_key(&group) => {
            format!("'{group}' is a group: did you mean '{group}={option}'?")
        }
        (_, Some(Value::Float(value))) if !value.is_finite() => "give a finite number".into(),
        (_, Some(Value::Float(value))) if value.fract() == 0.0 => format!("write {path}={value:.0}"),
        _ => format!("`hlrp config explain {path}` shows what set it"),
    }
}

/// The number in base 60, such as `12:00:00`, in the line of a file that set a value.
fn sexagesimal(origin: &Origin) -> Option<String> {
    let Source::File(path) = &origin.source else { return None };
    let text = std::fs::read_to_string(path.as_path()).ok()?;
    let line = text.lines().nth(origin.line.checked_sub(1)?)?;
    let (_, value) = line.split_once(": ")?;
    let is_in_base_60 = |word: &&str| word.contains(':') && word.chars().all(|char| "+-0123456789:._".contains(char));
    value.split([' ', ',', '[', ']', '{', '}']).find(is_in_base_60).map(str::to_owned)
}

/// The file that sets most of the section in which a key is missing.
fn section_file(composed: &Composed, key: &str) -> String {
    let mut parent = key;
    while let Some((section, _)) = parent.rsplit_once('.') {
        parent = section;
        if let Some(map) = composed.tree().get(parent).and_then(Node::as_map) {
            let mut counts: BTreeMap<&Source, usize> = BTreeMap::new();
            for node in map.values() {
                *counts.entry(&node.origin.source).or_default() += 1;
            }
            let files = counts.into_iter().filter(|(source, _)| matches!(source, Source::File(_)));
            if let Some((Source::File(path), _)) = files.max_by_key(|(_, count)| *count) {
                return path.display().to_string();
            }
        }
    }
    composed.raw().primary.display().to_string()
}
