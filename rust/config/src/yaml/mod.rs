//! YAML files to trees of values and back.

mod emit;
mod parse;
mod scalar;

pub(crate) use emit::emit;
pub(crate) use parse::{Document, parse};
