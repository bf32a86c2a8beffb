//! From an argument of the command line to an [`Override`].

use super::{
    Action, Override,
    cast::cast,
    lexer::{Kind, Token, tokens},
};
use crate::interpolation::parse::check as check_references;
use crate::node::{Node, Value, fits_64_bits};
use crate::origin::Origin;
use crate::problem::{Problem, ProblemKind, Result};
use crate::secret::has_secret;
use indexmap::IndexMap;
use regex_lite::Regex;
use std::sync::LazyLock;

/// `a`, `a.b.0`, `a/b`, or one of these with `@package`.
#[allow(clippy::unwrap_used)] // a constant pattern
static KEY: LazyLock<Regex> = LazyLock::new(|| {
    const SPECIAL: &str = r"[A-Za-z_$][A-Za-z0-9_$-]*";
    let part = format!("(?:{SPECIAL}|0|[1-9](?:_?[0-9])*)");
    let package = format!(r"(?:{part}(?:\.{part})+|{SPECIAL})");
    let group = r"[A-Za-z_][A-Za-z0-9_-]*(?:/[A-Za-z_][A-Za-z0-9_-]*)+";
    Regex::new(&format!("^(?<key>{group}|{package})(?:@(?<package>{package})?)?$")).unwrap()
});

/// Lists and maps inside each other; deeper nesting would exhaust the stack.
const MAX_DEPTH: usize = 64;

/// Reads one override.
///
/// # Errors
/// An argument that is not `key=value`, or a value that does not follow the grammar.
pub(crate) fn parse(argument: &str) -> Result<Override> {
    let (action, rest) = match argument {
        _ if argument.starts_with("++") => (Action::Force, &argument[2..]),
        _ if argument.starts_with('+') => (Action::Add, &argument[1..]),
        _ if argument.starts_with('~') => (Action::Delete, &argument[1..]),
        _ => (Action::Change, argument),
    };
    let (key, text) = match rest.split_once('=') {
        Some((key, text)) => (key, Some(text)),
        None if action == Action::Delete => (rest, None),
        None => {
            let error = Problem::of(ProblemKind::Syntax, format!("'{argument}' is not an override: it has no '='"));
            return Err(error.hint("write key=value, +key=value, ++key=value, ~key or group=option"));
        }
    };
    let Some(found) = KEY.captures(key) else {
        let error = Problem::of(ProblemKind::Syntax, format!("'{key}' in '{argument}' is not a key"));
        return Err(error.hint("a key is a dotted path (a.b.c), a group (a/b) or group@package"));
    };
    if text.is_some_and(|text| text.trim_start().starts_with('=')) {
        let error = Problem::of(ProblemKind::Syntax, format!("'{argument}' has two '=' after its key"));
        return Err(error.hint("write key=value; for text that begins with '=' write key='\"=text\"'"));
    }
    let part = |name| found.name(name).map(|part| part.as_str().to_string());
    let value = match text {
        None => None,
        Some(text) => Some(parse_value(text.trim_start_matches([' ', '\t']), argument)?),
    };
    if let Some(value) = &value {
        check_references(&Node::new(value.clone(), Origin::command_line(argument)))?;
    }
    let package = part("package").or_else(|| key.ends_with('@').then(String::new));
    Ok(Override { action, key: part("key").unwrap_or_default(), package, value, text: argument.to_string() })
}

fn parse_value(text: &str, argument: &str) -> Result<Value> {
    value_or_reason(text, &Origin::command_line(argument)).map_err(|reason| {
        // A reason quotes a part of the value, which may be a part of a secret.
        let (what, hint) =
            if has_secret(argument) { ("it does not follow the grammar".to_owned(), None) } else { reason };
        let error = Problem::of(ProblemKind::Syntax, format!("cannot read the value of '{argument}': {what}"));
        error.hint(hint.unwrap_or_else(|| "quote text with special characters: key='\"text\"'".into()))
    })
}

/// The typed value of a piece of text, as the command line would read it; none when it does not follow the grammar.
pub(crate) fn typed_value(text: &str, origin: &Origin) -> Option<Value> {
    value_or_reason(text, origin).ok()
}

/// The parts of a text between its commas outside of quotes and brackets; the whole text where it does not follow the
/// grammar.
pub(crate) fn split_commas(text: &str) -> Vec<&str> {
    let Ok(tokens) = tokens(text) else { return vec![text] };
    let mut parts = Vec::new();
    let (mut start, mut end, mut depth) = (0, 0, 0);
    for token in tokens {
        match token.kind {
            Kind::ParenOpen | Kind::BracketOpen | Kind::BraceOpen => depth += 1,
            Kind::ParenClose | Kind::BracketClose | Kind::BraceClose => depth -= 1,
            Kind::Comma if depth == 0 => {
                parts.push(&text[start..end]);
                start = end + token.text.len();
            }
            _ => {}
        }
        end += token.text.len();
    }
    parts.push(&text[start..]);
    parts
}

/// What is wrong, and what to do.
type Reason = (String, Option<String>);

fn value_or_reason(text: &str, origin: &Origin) -> std::result::Result<Value, Reason> {
    if text.is_empty() {
        return Ok(Value::Str(String::new()));
    }
    let tokens = tokens(text).map_err(|rest| (format!("unexpected '{rest}'"), None))?;
    let mut parser = ValueParser { tokens: &tokens, position: 0, depth: 0, origin };
    let value = parser.element()?;
    match parser.peek() {
        None => Ok(value),
        Some(Kind::Comma) => {
            let hint = format!("for a list write [{text}], for text write '\"{text}\"'");
            Err(("a comma outside of a list is ambiguous".into(), Some(hint)))
        }
        Some(_) => Err(parser.unexpected()),
    }
}

struct ValueParser<'a> {
    tokens: &'a [Token<'a>],
    position: usize,
    depth: usize,
    origin: &'a Origin,
}

impl ValueParser<'_> {
    fn peek(&self) -> Option<Kind> {
        self.tokens.get(self.position).map(|token| token.kind)
    }

    fn unexpected(&self) -> Reason {
        match self.tokens.get(self.position) {
            Some(token) => (format!("unexpected '{}'", token.text), None),
            None => ("it ends too early".into(), Some("close every bracket and quote".into())),
        }
    }

    fn accept(&mut self, kind: Kind) -> bool {
        let found = self.peek() == Some(kind);
        self.position += usize::from(found);
        found
    }

    fn element(&mut self) -> std::result::Result<Value, Reason> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err((format!("more than {MAX_DEPTH} levels"), None));
        }
        let value = self.element_inside();
        self.depth -= 1;
        value
    }

    fn element_inside(&mut self) -> std::result::Result<Value, Reason> {
        match self.peek() {
            Some(Kind::BracketOpen) => self.list(),
            Some(Kind::BraceOpen) => self.map(),
            Some(Kind::Id) if self.tokens.get(self.position + 1).is_some_and(|t| t.kind == Kind::ParenOpen) => {
                let name = self.tokens[self.position].text;
                self.position += 2;
                let argument = self.element()?;
                if !self.accept(Kind::ParenClose) {
                    return Err(self.unexpected());
                }
                cast(name, argument).map_err(|reason| (reason, Some("write the value itself".into())))
            }
            _ => self.primitive(true),
        }
    }

    fn list(&mut self) -> std::result::Result<Value, Reason> {
        self.position += 1;
        let mut items = Vec::new();
        if self.accept(Kind::BracketClose) {
            return Ok(Value::List(items));
        }
        loop {
            items.push(Node::new(self.element()?, self.origin.clone()));
            if self.accept(Kind::BracketClose) {
                return Ok(Value::List(items));
            }
            if !self.accept(Kind::Comma) {
                return Err(self.unexpected());
            }
        }
    }

    fn map(&mut self) -> std::result::Result<Value, Reason> {
        self.position += 1;
        let mut map = IndexMap::new();
        if self.accept(Kind::BraceClose) {
            return Ok(Value::Map(map));
        }
        loop {
            let key = match self.primitive(false)? {
                Value::Str(text) => text,
                other => Node::new(other, self.origin.clone()).summary(),
            };
            if !self.accept(Kind::Colon) {
                return Err(self.unexpected());
            }
            map.insert(key, Node::new(self.element()?, self.origin.clone()));
            if self.accept(Kind::BraceClose) {
                return Ok(Value::Map(map));
            }
            if !self.accept(Kind::Comma) {
                return Err(self.unexpected());
            }
        }
    }

    /// One typed token, or several joined as text. As a map's key it holds no `:`, `=`, reference or quotes.
    fn primitive(&mut self, is_value: bool) -> std::result::Result<Value, Reason> {
        if is_value && self.peek() == Some(Kind::Quoted) {
            let text = self.tokens[self.position].text;
            self.position += 1;
            return Ok(Value::Str(unquote(text)));
        }
        let start = self.position;
        while let Some(kind) = self.peek() {
            match kind {
                Kind::Id
                | Kind::Null
                | Kind::Int
                | Kind::Float
                | Kind::Bool
                | Kind::Char
                | Kind::Escape
                | Kind::Space => {}
                Kind::Interpolation | Kind::Colon | Kind::Equal if is_value => {}
                _ => break,
            }
            self.position += 1;
        }
        let mut used = &self.tokens[start..self.position];
        if used.is_empty() {
            return Err(self.unexpected());
        }
        if let [first, rest @ ..] = used
            && first.kind == Kind::Space
        {
            used = rest;
        }
        if let [rest @ .., last] = used
            && last.kind == Kind::Space
        {
            used = rest;
        }
        match used {
            [] => Err(("it is only white space".into(), None)),
            [token] => typed(token),
            several => Ok(Value::Str(several.iter().map(|token| unescape(token)).collect())),
        }
    }
}

fn typed(token: &Token) -> std::result::Result<Value, Reason> {
    let digits = token.text.replace('_', "");
    Ok(match token.kind {
        Kind::Int => {
            let value: Option<i128> = digits.strip_prefix('+').unwrap_or(&digits).parse().ok();
            let value = value.filter(|value| fits_64_bits(*value));
            let hint = || Some("quote it to make it text".to_owned());
            Value::Int(value.ok_or_else(|| (format!("the number {} does not fit 64 bits", token.text), hint()))?)
        }
        Kind::Float => Value::Float(digits.parse().map_err(|_| (format!("{} is not a number", token.text), None))?),
        Kind::Bool => Value::Bool(token.text.eq_ignore_ascii_case("true")),
        Kind::Null => Value::Null,
        _ => Value::Str(unescape(token)),
    })
}

/// Drops every other character of an escape token: `\,\:` is `,:`.
fn unescape(token: &Token) -> String {
    match token.kind {
        Kind::Escape => token.text.chars().skip(1).step_by(2).collect(),
        _ => token.text.to_string(),
    }
}

/// The text between the quotes; a backslash escapes only quotes and, before a quote, backslashes.
fn unquote(text: &str) -> String {
    let quote = if text.starts_with('"') { '"' } else { '\'' };
    let inner: Vec<char> = text.chars().skip(1).collect();
    let mut result = String::new();
    let mut i = 0;
    while i + 1 < inner.len() {
        let num_backslashes = inner[i..].iter().take_while(|&&c| c == '\\').count();
        if num_backslashes > 0 {
            let before_quote = inner.get(i + num_backslashes) == Some(&quote);
            let kept = if before_quote { num_backslashes / 2 } else { num_backslashes };
            result.extend(std::iter::repeat_n('\\', kept));
            i += num_backslashes;
            if before_quote && num_backslashes % 2 == 1 {
                result.push(quote);
                i += 1;
            }
        } else {
            result.push(inner[i]);
            i += 1;
        }
    }
    result
}
