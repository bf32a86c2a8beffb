//! References in values: `${a.b}`, `${.sibling}`, `${..uncle}`, `${a.${b}}` and `${resolver:argument,argument}`.
//!
//! References are resolved after all files and overrides are merged. A value that is one reference takes the type of
//! what it names, also whole sections; inside text the value is written as Python writes it. `\${` is a plain `${`.

pub(crate) mod parse;
pub(crate) mod resolve;
mod resolvers;
