//! Hydra-style configuration: composition, provenance, typed extraction.
//!
//! [`compose`] reads a tree of YAML files and the overrides of a command line as Hydra 1.3 does; [`Composed::extract`]
//! gives typed structs, strict about keys, types and values; [`Composed::explain`] says which file set a value. The
//! crate does not know what the values mean, except for the structs in [`schema`] that the programs share.

mod apply;
#[cfg(feature = "clap")]
mod args;
mod catalog;
mod check;
#[cfg(feature = "cli")]
pub mod cli;
mod completion;
mod compose;
mod composed;
mod defaults;
mod difference;
pub mod env;
mod error;
mod extract;
mod hub;
mod inspection;
mod interpolation;
mod merge;
mod node;
mod origin;
mod overrides;
mod python;
mod repository;
mod root;
pub mod schema;
mod suggest;
mod sweep;
mod yaml;

#[cfg(feature = "clap")]
pub use args::{ConfigArgs, PRIMARY};
pub use catalog::{Group, GroupOption, groups};
pub use check::{Check, Problem, ProblemKind};
pub use completion::{Completed, complete};
pub use compose::{Composition, compose, compose_raw, from_resolved};
pub use composed::{Composed, Explanation, read_yaml};
pub use difference::{Difference, diff};
pub use error::{ConfigError, ErrorKind};
pub use hub::is_hub_name;
pub use inspection::{Finding, Outcome, inspect};
pub use node::{Node, Value};
pub use origin::{Origin, Source};
pub use overrides::word_key;
pub use root::find_root;
pub use sweep::{SweepRun, num_runs, path_to_word, sweep};
