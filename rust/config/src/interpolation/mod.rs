//! References in values: `${a.b}`, `${.sibling}`, `${..uncle}`, `${a.${b}}` and `${resolver:argument,argument}`.
//!
//! References are resolved after all files and overrides are merged. A value that is one reference takes the type of
//! what it names, also whole sections; inside text the value is written as Python writes it. `\${` stands for `${`.

mod parse;
mod resolve;
mod resolvers;

pub(crate) use parse::escape;
pub(crate) use resolve::Resolver;

use crate::{Node, Problem, ProblemKind, Value, problem::Result};

/// Checks that all references below a node can be read.
///
/// # Errors
/// The first that cannot.
pub(crate) fn check(node: &Node) -> Result<()> {
    match &node.value {
        Value::Str(text) => parse::parse(text).map(|_| ()).map_err(|reason| unreadable(text, &reason).at(&node.origin)),
        Value::List(items) => items.iter().try_for_each(check),
        Value::Map(map) => map.values().try_for_each(check),
        _ => Ok(()),
    }
}

fn unreadable(text: &str, reason: &str) -> Problem {
    let error = Problem::of(ProblemKind::Interpolation, format!("cannot read '{text}': {reason}"));
    error.hint("references read ${a.b} or ${resolver:argument}; write \\${ for a plain ${")
}
