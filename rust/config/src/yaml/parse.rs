//! A YAML document as a tree in which every value knows its line.

use super::scalar;
use crate::node::{Node, Value};
use crate::origin::Origin;
use crate::problem::{Problem, ProblemKind, Result};
use indexmap::IndexMap;
use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};
use std::{borrow::Cow, collections::HashMap, path::PathBuf, sync::Arc};

/// Sections and lists inside each other; deeper nesting would exhaust the stack.
const MAX_DEPTH: usize = 64;

/// The content of a file.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    /// Its values; an empty section for a file without any.
    pub(crate) root: Node,
    /// Argument of the `# @package` comment above the values.
    pub(crate) package: Option<String>,
}

/// Reads a file's text.
///
/// # Errors
/// Text that is not YAML, more than one document, a key twice, an unknown tag: each with its line.
pub(crate) fn parse(text: &str, path: &Arc<PathBuf>) -> Result<Document> {
    let mut reader = Reader { parser: Parser::new_from_str(text), path, anchors: HashMap::new(), depth: 0 };
    let root = reader.document()?.unwrap_or_else(|| Node::empty_map(Origin::file(path, 1)));
    Ok(Document { root, package: package_header(text) })
}

/// `_global_` of `# @package _global_` in the comments at the top.
fn package_header(text: &str) -> Option<String> {
    let comments = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut comments = comments.map_while(|line| line.strip_prefix('#'));
    comments.find_map(|line| {
        let mut parts = line.split_whitespace();
        (parts.next() == Some("@package")).then(|| parts.next().unwrap_or_default().to_string())
    })
}

struct Reader<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    path: &'a Arc<PathBuf>,
    anchors: HashMap<usize, Node>,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn document(&mut self) -> Result<Option<Node>> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root),
                Event::DocumentStart(_) if root.is_some() => {
                    return Err(self.error(&span, "a second YAML document").hint("a file contains one document"));
                }
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                event => root = Some(self.node(event, &span)?),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span)> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            None => Ok((Event::StreamEnd, Span::default())),
            Some(Err(error)) => {
                let origin = Origin::file(self.path, error.marker().line());
                let tab = error.info().contains("tab");
                let message = format!("not YAML: {}", error.info());
                Err(Problem::of(ProblemKind::Syntax, message).at(&origin).hint(if tab {
                    "indent with spaces"
                } else {
                    "check quotes, brackets and indentation there"
                }))
            }
        }
    }

    fn error(&self, span: &Span, message: impl Into<String>) -> Problem {
        Problem::of(ProblemKind::Syntax, message).at(&Origin::file(self.path, span.start.line()))
    }

    fn node(&mut self, event: Event<'a>, span: &Span) -> Result<Node> {
        let origin = Origin::file(self.path, span.start.line());
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error(span, format!("more than {MAX_DEPTH} levels")).hint("flatten the sections"));
        }
        let (value, anchor) = match event {
            Event::Alias(id) => {
                self.depth -= 1;
                let known = self.anchors.get(&id).cloned();
                return known.ok_or_else(|| self.error(span, "an alias inside its own anchor"));
            }
            Event::Scalar(text, style, anchor, tag) => (self.scalar(&text, style, tag.as_ref(), span)?, anchor),
            Event::SequenceStart(anchor, tag) => {
                self.check_tag(tag.as_ref(), "seq", span)?;
                let mut items = Vec::new();
                loop {
                    let (event, span) = self.next()?;
                    if matches!(event, Event::SequenceEnd) {
                        break;
                    }
                    items.push(self.node(event, &span)?);
                }
                (Value::List(items), anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.check_tag(tag.as_ref(), "map", span)?;
                (self.mapping()?, anchor)
            }
            _ => return Err(self.error(span, "an unfinished document")),
        };
        self.depth -= 1;
        let node = Node::new(value, origin);
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn mapping(&mut self) -> Result<Value> {
        let mut map = IndexMap::new();
        let mut merged = IndexMap::new();
        loop {
            let (event, key_span) = self.next()?;
            let (key, plain) = match event {
                Event::MappingEnd => break,
                Event::Scalar(text, style, ..) => (text.into_owned(), style == ScalarStyle::Plain),
                _ => {
                    let error = self.error(&key_span, "a key that is not plain text");
                    return Err(error.hint("quote the value if it starts with { or ["));
                }
            };
            let (event, span) = self.next()?;
            let mut value = self.node(event, &span)?;
            if key == "<<" && plain {
                self.merge_key(&mut merged, value, &span)?;
                continue;
            }
            value.origin = Origin::file(self.path, key_span.start.line());
            if map.insert(key.clone(), value).is_some() {
                return Err(self.error(&key_span, format!("key '{key}' appears twice")).hint("remove one of the two"));
            }
        }
        // A key of the mapping itself wins over a merged one.
        for (key, value) in map {
            merged.insert(key, value);
        }
        Ok(Value::Map(merged))
    }

    /// `<<: *a` and `<<: [*a, *b]`; of several, the first that has a key wins.
    fn merge_key(&self, merged: &mut IndexMap<String, Node>, value: Node, span: &Span) -> Result<()> {
        let parents = match value.value {
            Value::Map(map) => vec![map],
            Value::List(items) => items.into_iter().filter_map(|item| item.as_map().cloned()).collect(),
            _ => return Err(self.error(span, "'<<' takes a section or a list of sections")),
        };
        for (key, node) in parents.into_iter().flatten() {
            merged.entry(key).or_insert(node);
        }
        Ok(())
    }

    fn scalar(&self, text: &str, style: ScalarStyle, tag: Option<&Cow<'_, Tag>>, span: &Span) -> Result<Value> {
        let typed = |text: &str| scalar::plain(text).map_err(|message| self.error(span, message));
        match tag.map(|tag| core_type(tag)) {
            None if style == ScalarStyle::Plain => typed(text),
            None | Some(Some("str" | "!")) => Ok(Value::Str(text.to_string())),
            Some(Some(tag @ ("int" | "float" | "bool" | "null"))) => {
                scalar::tagged(tag, text).map_err(|message| self.error(span, message).hint("remove the tag"))
            }
            Some(_) => Err(self.unknown_tag(tag, span)),
        }
    }

    /// # Errors
    /// A list or section has a tag other than its `own`.
    fn check_tag(&self, tag: Option<&Cow<'_, Tag>>, own: &str, span: &Span) -> Result<()> {
        let is_own = tag.is_none_or(|tag| core_type(tag).is_some_and(|name| name == own || name == "!"));
        if is_own { Ok(()) } else { Err(self.unknown_tag(tag, span)) }
    }

    fn unknown_tag(&self, tag: Option<&Cow<'_, Tag>>, span: &Span) -> Problem {
        let name = tag.map(|tag| format!("{}{}", tag.handle, tag.suffix)).unwrap_or_default();
        let name = name.replace(CORE, "!!");
        self.error(span, format!("unknown tag '{name}'")).hint("remove the tag")
    }
}

/// Prefix of the tags of YAML's own types.
const CORE: &str = "tag:yaml.org,2002:";

/// The type that a tag names, if it is one of YAML's own; `!` for the non-specific tag.
fn core_type(tag: &Tag) -> Option<&str> {
    match (tag.handle.as_str(), tag.suffix.as_str()) {
        (CORE, name) => Some(name),
        ("", "!") | ("!", "") => Some("!"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Value> {
        Ok(parse(text, &Arc::new("a.yaml".into()))?.root.child("a").map_or(Value::Null, |node| node.value.clone()))
    }

    #[test]
    fn tags_are_read_as_pyyaml_reads_them_or_refused() {
        assert_eq!(parsed("a: !!float 1"), Ok(Value::Float(1.0)));
        assert_eq!(parsed("a: !!int '12'"), Ok(Value::Int(12)));
        assert_eq!(parsed("a: !!str 12"), Ok(Value::Str("12".into())));
        assert_eq!(parsed("a: ! 12"), Ok(Value::Str("12".into())));
        assert!(parsed("a: !!seq [1]").is_ok() && parsed("a: !!map {b: 1}").is_ok());
        let refused = [
            "!!int 1.5",
            "!!bool maybe",
            "!!set {b}",
            "!!python/tuple [1]",
            "!local [1]",
            "!str 1",
            "!!timestamp 2026-01-01",
        ];
        for text in refused {
            let error = parsed(&format!("a: {text}"));
            assert!(error.as_ref().is_err_and(|error| error.to_string().contains("tag")), "{text}: {error:?}");
        }
    }
}
