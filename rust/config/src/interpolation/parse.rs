//! The parts of a text with references.

use crate::node::{Node, Value};
use crate::problem::{Problem, ProblemKind};
use regex_lite::Regex;
use std::sync::LazyLock;

/// A stretch of text or a reference.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    Text(String),
    Reference(Reference),
}

/// What is between `${` and `}`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reference {
    /// A path, which may itself contain references.
    Path(Vec<Part>),
    /// `name:argument,argument`
    Call { name: String, arguments: Vec<Argument> },
}

/// An argument of a resolver.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Argument {
    pub(super) parts: Vec<Part>,
    /// In quotes, so that it is text whatever it looks like.
    pub(super) is_quoted: bool,
}

/// Cuts a text into parts.
///
/// # Errors
/// What is wrong.
pub(super) fn parse(text: &str) -> Result<Vec<Part>, String> {
    let chars: Vec<char> = text.chars().collect();
    let mut parser = Parser { chars: &chars, position: 0, depth: 0 };
    parser.text(|_, _| false)
}

/// Checks that all references below a node can be read.
///
/// # Errors
/// The first that cannot.
pub(crate) fn check(node: &Node) -> Result<(), Problem> {
    match &node.value {
        Value::Str(text) => parse(text).map(|_| ()).map_err(|reason| unreadable(text, &reason).at(&node.origin)),
        Value::List(items) => items.iter().try_for_each(check),
        Value::Map(map) => map.values().try_for_each(check),
        _ => Ok(()),
    }
}

pub(super) fn unreadable(text: &str, reason: &str) -> Problem {
    let error = Problem::of(ProblemKind::Interpolation, format!("cannot read '{text}': {reason}"));
    error.hint("references read ${a.b} or ${resolver:argument}; write \\${ for a plain ${")
}

/// `text` such that [`parse`] gives it back as text.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut num_backslashes = 0;
    for (i, c) in text.char_indices() {
        if text[i..].starts_with("${") {
            escaped.extend(std::iter::repeat_n('\\', num_backslashes + 1));
        }
        num_backslashes = if c == '\\' { num_backslashes + 1 } else { 0 };
        escaped.push(c);
    }
    escaped
}

/// A path is names with dots or brackets between them; references may replace names.
fn check_path(parts: &[Part]) -> Result<(), String> {
    let skeleton: String = parts
        .iter()
        .map(|part| match part {
            Part::Text(text) => text.as_str(),
            Part::Reference(_) => "x",
        })
        .collect();
    if PATH.is_match(skeleton.trim()) { Ok(()) } else { Err(format!("'{skeleton}' is not a path")) }
}

#[allow(clippy::unwrap_used)] // a constant pattern
static PATH: LazyLock<Regex> = LazyLock::new(|| {
    let name = r"[^\s.\[\]{}:'\x22,=()]+";
    Regex::new(&format!(r"^\.*(?:{name}|\[{name}\])?(?:\.{name}|\[{name}\])*$")).unwrap()
});

/// References inside each other; deeper nesting would exhaust the stack.
const MAX_DEPTH: usize = 64;

struct Parser<'a> {
    chars: &'a [char],
    position: usize,
    depth: usize,
}

impl Parser<'_> {
    fn starts_with(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(i, c)| self.chars.get(self.position + i) == Some(&c))
    }

    /// Text and references up to the end or to a character at which `ends` says so.
    fn text(&mut self, ends: impl Fn(char, usize) -> bool) -> Result<Vec<Part>, String> {
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut depth = 0usize;
        while let Some(&c) = self.chars.get(self.position) {
            if self.starts_with("${") {
                let num_backslashes = text.chars().rev().take_while(|&c| c == '\\').count();
                text.truncate(text.len() - num_backslashes.div_ceil(2));
                if num_backslashes % 2 == 1 {
                    text.push_str("${");
                    self.position += 2;
                    continue;
                }
                if !text.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut text)));
                }
                self.position += 2;
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return Err(format!("more than {MAX_DEPTH} references inside each other"));
                }
                parts.push(Part::Reference(self.reference()?));
                self.depth -= 1;
                continue;
            }
            if depth == 0 && ends(c, depth) {
                break;
            }
            match c {
                '[' | '{' => depth += 1,
                ']' | '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            text.push(c);
            self.position += 1;
        }
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        Ok(parts)
    }

    /// The rest of a reference after `${`, with its `}`.
    fn reference(&mut self) -> Result<Reference, String> {
        let head = self.text(|c, _| c == ':' || c == '}')?;
        let reference = match self.chars.get(self.position) {
            Some(':') => {
                let [Part::Text(name)] = head.as_slice() else {
                    return Err("the name of a resolver holds a reference".into());
                };
                let name = name.trim().to_string();
                Reference::Call { name, arguments: self.arguments()? }
            }
            Some(_) => {
                check_path(&head)?;
                Reference::Path(head)
            }
            None => return Err("'${' without its '}'".into()),
        };
        match self.chars.get(self.position) {
            Some('}') => {
                self.position += 1;
                Ok(reference)
            }
            _ => Err("'${' without its '}'".into()),
        }
    }

    fn arguments(&mut self) -> Result<Vec<Argument>, String> {
        let mut arguments = Vec::new();
        while self.chars.get(self.position).is_some_and(|c| matches!(c, ':' | ',')) {
            self.position += 1;
            while self.chars.get(self.position).is_some_and(|c| matches!(c, ' ' | '\t')) {
                self.position += 1;
            }
            let argument = match self.chars.get(self.position) {
                Some(&quote @ ('\'' | '"')) => {
                    self.position += 1;
                    let parts = self.text(|c, _| c == quote)?;
                    self.position += 1;
                    let rest = self.text(|c, _| matches!(c, ',' | '}'))?;
                    if rest.iter().any(|part| !matches!(part, Part::Text(text) if text.trim().is_empty())) {
                        return Err("text after a quoted argument".into());
                    }
                    Argument { parts, is_quoted: true }
                }
                _ => {
                    let mut parts = self.text(|c, _| matches!(c, ',' | '}'))?;
                    if let Some(Part::Text(text)) = parts.last_mut() {
                        text.truncate(text.trim_end().len());
                    }
                    Argument { parts, is_quoted: false }
                }
            };
            arguments.push(argument);
        }
        if let [only] = arguments.as_slice()
            && only.parts.is_empty()
            && !only.is_quoted
        {
            arguments.clear();
        }
        Ok(arguments)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn escaped_text_parses_to_itself() {
        for text in ["plain", "${a}", "\\${a}", "x\\\\${a}y", "$ {a} \\", "${${b}}"] {
            let parts = parse(&escape(text)).unwrap();
            let joined: String = parts
                .iter()
                .map(|part| match part {
                    Part::Text(text) => text.as_str(),
                    Part::Reference(_) => panic!("{text} became a reference"),
                })
                .collect();
            assert_eq!(joined, text);
        }
    }
}
