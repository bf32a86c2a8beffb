//! Tokens of an override's value: at each place the longest token, of equally long ones the first of the list.

use regex_lite::Regex;
use std::sync::LazyLock;

/// Kinds of tokens, in the order in which equally long ones win.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    ParenOpen,
    Comma,
    ParenClose,
    BracketOpen,
    BracketClose,
    BraceOpen,
    BraceClose,
    Colon,
    Equal,
    Float,
    Int,
    Bool,
    Null,
    /// A character that unquoted text may hold.
    Char,
    Id,
    /// Escaped characters.
    Escape,
    Space,
    Quoted,
    Interpolation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind,
    pub(crate) text: &'a str,
}

const INT: &str = "(?:0|[1-9](?:_?[0-9])*)";

static TOKENS: LazyLock<Vec<(Kind, Regex)>> = LazyLock::new(|| {
    let point = format!(r"(?:{INT}\.[0-9](?:_?[0-9])*|\.[0-9](?:_?[0-9])*|{INT}\.)");
    let exponent = format!("(?:{point}|{INT})[eE][+-]?[0-9](?:_?[0-9])*");
    let float = format!("[+-]?(?:{exponent}|{point}|[Ii][Nn][Ff]|[Nn][Aa][Nn])");
    let patterns = [
        (Kind::ParenOpen, r"[ \t]*\([ \t]*"),
        (Kind::Comma, r"[ \t]*,[ \t]*"),
        (Kind::ParenClose, r"[ \t]*\)"),
        (Kind::BracketOpen, r"\[[ \t]*"),
        (Kind::BracketClose, r"[ \t]*\]"),
        (Kind::BraceOpen, r"\{[ \t]*"),
        (Kind::BraceClose, r"[ \t]*\}"),
        (Kind::Colon, r"[ \t]*:[ \t]*"),
        (Kind::Equal, r"[ \t]*=[ \t]*"),
        (Kind::Float, float.as_str()),
        (Kind::Int, &format!("[+-]?{INT}")),
        (Kind::Bool, "(?:[Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee])"),
        (Kind::Null, "[Nn][Uu][Ll][Ll]"),
        (Kind::Char, r"[/\-\\+.$%*@?|]"),
        (Kind::Id, "[A-Za-z_][A-Za-z0-9_-]*"),
        (Kind::Escape, r"(?:\\[\\()\[\]{}:=, \t])+"),
        (Kind::Space, r"[ \t]+"),
        (Kind::Quoted, r#"(?s)(?:"(?:(?:\\\\)*|.*?[^\\](?:\\\\)*)"|'(?:(?:\\\\)*|.*?[^\\](?:\\\\)*)')"#),
        (Kind::Interpolation, r"\$\{[^}]+\}"),
    ];
    #[allow(clippy::unwrap_used)] // constant patterns
    patterns.map(|(kind, pattern)| (kind, Regex::new(&format!("^{pattern}")).unwrap())).into()
});

/// Cuts a value into tokens.
///
/// # Errors
/// The rest of the text at the first place where no token begins.
pub(crate) fn tokens(mut text: &str) -> Result<Vec<Token<'_>>, &str> {
    let mut tokens = Vec::new();
    while !text.is_empty() {
        let mut best: Option<Token> = None;
        for (kind, pattern) in TOKENS.iter() {
            let length = pattern.find(text).map_or(0, |found| found.end());
            if length > best.map_or(0, |token| token.text.len()) {
                best = Some(Token { kind: *kind, text: &text[..length] });
            }
        }
        let token = best.ok_or(text)?;
        text = &text[token.text.len()..];
        tokens.push(token);
    }
    Ok(tokens)
}
