//! Hydra-style configuration: composition, provenance, typed extraction.
//!
//! [`compose`] reads a tree of YAML files and the overrides of a command line as Hydra 1.3 does; [`Composed::extract`]
//! returns typed structs, strict about keys, types and values; [`Composed::explain`] says what set a value. The
//! crate does not know what the values mean: a [`Project`] names the few keys that it needs.

mod apply;
mod catalog;
mod completion;
mod compose;
mod composed;
mod composition;
mod defaults;
mod difference;
mod extract;
pub mod foreign;
mod inspection;
mod interpolation;
mod merge;
mod node;
mod origin;
mod overrides;
mod problem;
mod project;
mod python;
mod repository;
mod root;
pub mod secret;
pub mod suggest;
mod sweep;
mod yaml;

pub use catalog::{Group, GroupOption, groups};
pub use completion::{Completed, complete};
pub use compose::{compose, compose_raw, from_resolved};
pub use composed::{Composed, Explanation, read_yaml};
pub use composition::Composition;
pub use difference::{Difference, diff};
pub use inspection::{Finding, Outcome, inspect};
pub use node::{Node, Value};
pub use origin::{Origin, Source};
pub use overrides::{
    override_key,
    write::{write_path, write_value},
};
pub use problem::{Check, Hint, HintOf, Problem, ProblemKind, Result, hint_of, with_hint};
pub use project::Project;
pub use repository::Repository;
pub use root::find_root;
pub use sweep::{CheckRun, SweepRun, num_runs, sweep};
